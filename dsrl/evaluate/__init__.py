"""Measures models on the test set and compares them."""

from dsrl.evaluate.compare import Compare
from dsrl.evaluate.evaluate import Evaluate

__all__ = ["Compare", "Evaluate"]
