"""A Ray on this machine, started and stopped by us."""

import socket
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from pydantic import Field

from dsrl.cluster.daemons import started
from dsrl.part import part
from dsrl.ray import Cluster, Ray, Say


@part
class LocalRay(Cluster):
    """Has a port, a folder and a token of its own: another Ray on this machine is neither used nor touched."""

    cpus: int | None = Field(default=None, ge=1)
    """None: all that this process may use."""
    gpus: int | None = Field(default=None, ge=0)
    """None: all that are visible."""
    object_store_gb: float | None = Field(default=None, gt=0)
    """Shared memory for objects; None: 30 % of the machine's memory, as Ray has it."""

    def open(self, folder: Path, python: str = sys.executable, say: Say = print) -> AbstractContextManager[Ray]:
        told = {
            "head": "127.0.0.1",
            "port": free_port(),
            "fixed_ports": False,
            "cpus": self.cpus,
            "gpus": self.gpus,
            "object_store_gb": self.object_store_gb,
            "ready_seconds": self.ready_seconds,
        }
        return started(told, [], 1, folder, python, say, self.runtime_env)


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
