"""Difficulty of test items from pairwise battles: ratings and tiers for `dsrl difficulty`."""

from dsrl.stages.difficulty.stage import Difficulty

__all__ = ["Difficulty"]
