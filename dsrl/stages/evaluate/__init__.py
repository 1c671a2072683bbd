"""Measures models on the test set and compares them."""

from dsrl.stages.evaluate.compare import Compare
from dsrl.stages.evaluate.evaluate import Evaluate

__all__ = ["Compare", "Evaluate"]
