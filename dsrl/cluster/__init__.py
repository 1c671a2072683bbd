"""Where heavy work runs: allocations of Slurm, and the Ray on which distributed training runs."""

from dsrl.cluster.address import RayAddress
from dsrl.cluster.allocation import SlurmRay
from dsrl.cluster.local import LocalRay
from dsrl.cluster.request import Request

__all__ = ["LocalRay", "RayAddress", "Request", "SlurmRay"]
