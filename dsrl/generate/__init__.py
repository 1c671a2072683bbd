"""The teacher at work: new samples out of passages, rewrites of samples, and the votes that label both."""

from dsrl.generate.generate import Generate
from dsrl.generate.labels import OwnAnswer, SelfCorrection
from dsrl.generate.rewrite import Rewrite
from dsrl.generate.self_instruct import SelfInstruct
from dsrl.generate.synthllm import SynthLlm
from dsrl.generate.targen import TarGen
from dsrl.generate.variants import (
    Agreement,
    HarderVariants,
    ImageNeeded,
    IntervalBand,
    PassBand,
    QualityJudge,
    SinglePass,
)
from dsrl.generate.vote import MajorityVote

__all__ = [
    "Agreement",
    "Generate",
    "HarderVariants",
    "ImageNeeded",
    "IntervalBand",
    "MajorityVote",
    "OwnAnswer",
    "PassBand",
    "QualityJudge",
    "Rewrite",
    "SelfCorrection",
    "SelfInstruct",
    "SinglePass",
    "SynthLlm",
    "TarGen",
]
