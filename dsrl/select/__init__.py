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

__all__ = [
    "All",
    "Blind",
    "Easiest",
    "Hardest",
    "Learnable",
    "PaperRanking",
    "Probability",
    "RandomChoice",
    "Select",
]
