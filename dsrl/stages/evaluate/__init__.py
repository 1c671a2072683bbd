"""Measure models on the test set and compare them."""

from dsrl.stages.evaluate.compare import Compare
from dsrl.stages.evaluate.evaluate import Evaluate

__all__ = ["Compare", "Evaluate"]
