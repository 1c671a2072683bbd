"""SynthRL: harder variants of labelled questions, with the answer kept and verified by the target's own replies."""

from dsrl.stages.rewrite.synthrl.image_needed import ImageNeeded
from dsrl.stages.rewrite.synthrl.judges import QualityJudge, SecondModel
from dsrl.stages.rewrite.synthrl.pass_band import IntervalBand, PassBand, SinglePass
from dsrl.stages.rewrite.synthrl.stage import HarderVariants

__all__ = ["HarderVariants", "ImageNeeded", "IntervalBand", "PassBand", "QualityJudge", "SecondModel", "SinglePass"]
