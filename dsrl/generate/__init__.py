"""The teacher at work: new samples out of passages, rewrites of samples, and the votes that label both."""

from dsrl.generate.generate import Generate
from dsrl.generate.rewrite import Rewrite
from dsrl.generate.variants import Agreement, HarderVariants, IntervalBand, PassBand, QualityJudge, SinglePass
from dsrl.generate.vote import MajorityVote

__all__ = [
    "Agreement",
    "Generate",
    "HarderVariants",
    "IntervalBand",
    "MajorityVote",
    "PassBand",
    "QualityJudge",
    "Rewrite",
    "SinglePass",
]
