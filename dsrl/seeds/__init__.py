"""Labelled data that a pipeline starts from."""

from dsrl.seeds.seeds import Seeds

__all__ = ["Seeds"]
