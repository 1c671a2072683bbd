"""How often a model solves each sample: the rollout engines, the greedy probe and the pass rate."""

from dsrl.score.local import TransformersRollout
from dsrl.score.pass_count import PassCount
from dsrl.score.probe import Probe
from dsrl.score.rates import Score
from dsrl.score.sequential import Sequential
from dsrl.score.server import ServerRollout
from dsrl.score.vllm import VllmRollout

__all__ = ["PassCount", "Probe", "Score", "Sequential", "ServerRollout", "TransformersRollout", "VllmRollout"]
