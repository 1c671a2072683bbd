"""Labelled questions that a pipeline starts from."""

from dsrl.seeds.stage import Seeds

__all__ = ["Seeds"]
