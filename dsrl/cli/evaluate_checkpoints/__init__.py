"""All checkpoints of a folder measured by one command: `dsrl evaluate model=hf model.path=FOLDER checkpoints=all`."""

from dsrl.cli.evaluate_checkpoints.command import every_checkpoint

__all__ = ["every_checkpoint"]
