"""Chooses the samples to train on."""

from dsrl.select.select import Select
from dsrl.select.strategies import (
    All,
    Blind,
    Easiest,
    Hardest,
    Learnable,
    PaperRanking,
    Probability,
    RandomChoice,
)
from dsrl.select.variants import Augment, Replace, SeedsOnly

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
