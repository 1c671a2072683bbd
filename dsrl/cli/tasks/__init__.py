"""`dsrl task new | check | ls`: a task is begun, proved and listed."""

from dsrl.cli.tasks.command import task

__all__ = ["task"]
