"""The Ray that distributed training runs on: at an address, on this machine, or over a Slurm allocation."""

from dsrl.infra.ray.existing import RayAddress
from dsrl.infra.ray.own import LocalRay
from dsrl.infra.ray.slurm import SlurmRay

__all__ = ["LocalRay", "RayAddress", "SlurmRay"]
