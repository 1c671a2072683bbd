"""Rollout engines: how replies of the measured model are generated (config group `rollout`)."""

from dsrl.models.rollout.server import ServerRollout
from dsrl.models.rollout.transformers import TransformersRollout
from dsrl.models.rollout.vllm import VllmRollout

__all__ = ["ServerRollout", "TransformersRollout", "VllmRollout"]
