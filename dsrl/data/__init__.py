"""Samples, tasks, models, and the data sets that users bring."""

from dsrl.data.model import Model
from dsrl.data.source import Source
from dsrl.data.task import Contamination, Task

__all__ = ["Contamination", "Model", "Source", "Task"]
