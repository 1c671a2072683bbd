"""Labelled questions that a pipeline starts from."""

from dsrl.stages.seeds.stage import Seeds

__all__ = ["Seeds"]
