"""Samples compared with the test set and with each other."""

from dsrl.stages.decontaminate.decontaminate import Decontaminate
from dsrl.stages.decontaminate.diversity import Diversity

__all__ = ["Decontaminate", "Diversity"]
