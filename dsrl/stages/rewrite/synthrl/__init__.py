"""Harder variants of labelled questions, with the answer kept and verified by the target's own replies (SynthRL)."""

from dsrl.stages.rewrite.synthrl.image_needed import ImageNeeded
from dsrl.stages.rewrite.synthrl.pass_band import IntervalBand, PassBand, SinglePass
from dsrl.stages.rewrite.synthrl.quality_judge import QualityJudge
from dsrl.stages.rewrite.synthrl.second_model import SecondModel
from dsrl.stages.rewrite.synthrl.stage import HarderVariants

__all__ = ["HarderVariants", "ImageNeeded", "IntervalBand", "PassBand", "QualityJudge", "SecondModel", "SinglePass"]
