"""Evaluate all checkpoints of a folder: `dsrl evaluate model=hf model.path=FOLDER checkpoints=all`."""

from dsrl.cli.evaluate_checkpoints.command import evaluate_checkpoints

__all__ = ["evaluate_checkpoints"]
