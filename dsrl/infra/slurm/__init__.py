"""Jobs of Slurm."""

from dsrl.infra.slurm.request import JobRequest

__all__ = ["JobRequest"]
