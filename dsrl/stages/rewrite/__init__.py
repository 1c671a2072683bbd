"""Rewrites of samples: solved ones harder and unsolved ones easier (Synthetic Data RL), or labelled questions harder
with the answer kept (SynthRL)."""

from dsrl.stages.rewrite.rewrite import Rewrite
from dsrl.stages.rewrite.synthrl import (
    HarderVariants,
    ImageNeeded,
    IntervalBand,
    PassBand,
    QualityJudge,
    SecondModel,
    SinglePass,
)

__all__ = [
    "HarderVariants",
    "ImageNeeded",
    "IntervalBand",
    "PassBand",
    "QualityJudge",
    "Rewrite",
    "SecondModel",
    "SinglePass",
]
