"""Chooses the samples to train on."""

from dsrl.stages.select.base import Select
from dsrl.stages.select.strategies import (
    AllScored,
    Augment,
    Easiest,
    Hardest,
    Learnable,
    PaperRanking,
    Probability,
    RandomChoice,
    RandomUnscored,
    Replace,
    SeedsOnly,
)

__all__ = [
    "AllScored",
    "Augment",
    "Easiest",
    "Hardest",
    "Learnable",
    "PaperRanking",
    "Probability",
    "RandomChoice",
    "RandomUnscored",
    "Replace",
    "SeedsOnly",
    "Select",
]
