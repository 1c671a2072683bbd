"""A Ray on this machine, started and stopped by us."""

import socket
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from dsrl.core.component import component
from dsrl.infra.ray.base import OwnRay, Ray, Say
from dsrl.infra.ray.start import started


@component("cluster.local")
class LocalRay(OwnRay):
    """Has a port, a folder and a token of its own: another Ray on this machine is neither used nor touched."""

    def open(self, folder: Path, python: str = sys.executable, say: Say = print) -> AbstractContextManager[Ray]:
        told = self.told(head="127.0.0.1", port=free_port(), fixed_ports=False)
        return started(told, [], 1, folder, python, say, self.runtime_env)


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
