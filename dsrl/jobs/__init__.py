"""Runs as jobs of Slurm: `dsrl submit`, `dsrl status`, and the launcher of sweeps."""

from dsrl.jobs.status import status
from dsrl.jobs.submit import submit

__all__ = ["status", "submit"]
