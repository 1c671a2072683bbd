"""How often the base model solves each sample: the greedy probe and the pass rate."""

from dsrl.stages.score.pass_count import PassCount
from dsrl.stages.score.pass_rate import Probe, Score
from dsrl.stages.score.sequential import Sequential

__all__ = ["PassCount", "Probe", "Score", "Sequential"]
