"""Chooses the samples to train on."""

from dsrl.select.select import Select
from dsrl.select.strategies import All, Easiest, Hardest, Learnable, PaperRanking, RandomChoice
from dsrl.select.variants import Augment, Replace, SeedsOnly

__all__ = [
    "All",
    "Augment",
    "Easiest",
    "Hardest",
    "Learnable",
    "PaperRanking",
    "RandomChoice",
    "Replace",
    "SeedsOnly",
    "Select",
]
