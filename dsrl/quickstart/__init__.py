"""A complete small setting that needs no GPU, API key or network: a task, an offline teacher and a tiny base model."""

from dsrl.quickstart.base import Pretrain
from dsrl.quickstart.teacher import OfflineTeacher

__all__ = ["OfflineTeacher", "Pretrain"]
