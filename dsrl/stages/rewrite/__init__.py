"""Solved samples are rewritten harder, unsolved ones easier (Synthetic Data RL); or labelled questions are made harder
with the answer kept (`synthrl/`)."""

from dsrl.stages.rewrite.rewrite import Rewrite
from dsrl.stages.rewrite.synthrl import (
    Agreement,
    HarderVariants,
    ImageNeeded,
    IntervalBand,
    PassBand,
    QualityJudge,
    SinglePass,
)

__all__ = [
    "Agreement",
    "HarderVariants",
    "ImageNeeded",
    "IntervalBand",
    "PassBand",
    "QualityJudge",
    "Rewrite",
    "SinglePass",
]
