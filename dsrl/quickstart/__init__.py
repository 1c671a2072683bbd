"""A whole world in small: a task, a teacher and a base model that need no GPU, no key and no network."""

from dsrl.quickstart.base import Pretrain
from dsrl.quickstart.teacher import OfflineTeacher

__all__ = ["OfflineTeacher", "Pretrain"]
