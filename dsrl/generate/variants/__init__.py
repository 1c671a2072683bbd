"""Harder variants of labelled questions, with the answer kept and verified by the target's own replies (SynthRL)."""

from dsrl.generate.variants.agreement import Agreement
from dsrl.generate.variants.band import IntervalBand, PassBand, SinglePass
from dsrl.generate.variants.judge import QualityJudge
from dsrl.generate.variants.picture import ImageNeeded
from dsrl.generate.variants.stage import HarderVariants

__all__ = ["Agreement", "HarderVariants", "ImageNeeded", "IntervalBand", "PassBand", "QualityJudge", "SinglePass"]
