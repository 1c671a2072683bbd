"""All checkpoints of a folder measured by one command: `dsrl evaluate model=hf model.path=FOLDER checkpoints=all`."""

from dsrl.cli.evaluate_checkpoints.command import evaluate_checkpoints

__all__ = ["evaluate_checkpoints"]
