"""Solved samples are rewritten harder, unsolved ones easier (Synthetic Data RL); or labelled questions are made harder
with the answer kept (`synthrl/`)."""

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
