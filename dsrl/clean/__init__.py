"""Samples held against the test set and against each other."""

from dsrl.clean.decontaminate import Decontaminate
from dsrl.clean.diversity import Diversity

__all__ = ["Decontaminate", "Diversity"]
