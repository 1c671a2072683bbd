"""Chooses the samples to train on."""

from dsrl.stages.select.base import Select
from dsrl.stages.select.strategies import (
    All,
    Blind,
    Easiest,
    Hardest,
    Learnable,
    PaperRanking,
    Probability,
    RandomChoice,
)
from dsrl.stages.select.synthrl import Augment, Replace, SeedsOnly

__all__ = [
    "All",
    "Augment",
    "Blind",
    "Easiest",
    "Hardest",
    "Learnable",
    "PaperRanking",
    "Probability",
    "RandomChoice",
    "Replace",
    "SeedsOnly",
    "Select",
]
