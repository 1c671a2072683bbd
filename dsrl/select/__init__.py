"""Chooses the samples to train on."""

from dsrl.select.select import Select
from dsrl.select.strategies import All, Easiest, Hardest, Learnable, PaperRanking, RandomChoice

__all__ = ["All", "Easiest", "Hardest", "Learnable", "PaperRanking", "RandomChoice", "Select"]
