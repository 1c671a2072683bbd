"""Jobs of Slurm."""

from dsrl.infra.slurm.request import Request

__all__ = ["Request"]
