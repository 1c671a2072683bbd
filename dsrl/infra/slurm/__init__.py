"""Slurm: what a job requests, and the state of partitions and jobs."""

from dsrl.infra.slurm.request import JobRequest

__all__ = ["JobRequest"]
