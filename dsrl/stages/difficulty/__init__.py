"""How hard test items are, by pairwise battles: ratings and tiers for `dsrl difficulty`."""

from dsrl.stages.difficulty.stage import Difficulty

__all__ = ["Difficulty"]
