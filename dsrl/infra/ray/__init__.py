"""The Ray on which distributed training runs: an existing one, one on this machine, one over a Slurm allocation."""

from dsrl.infra.ray.existing import RayAddress
from dsrl.infra.ray.local import LocalRay
from dsrl.infra.ray.slurm import SlurmRay

__all__ = ["LocalRay", "RayAddress", "SlurmRay"]
