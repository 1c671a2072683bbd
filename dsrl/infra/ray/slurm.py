"""A Ray over all nodes of the Slurm allocation that we are in."""

import os
import socket
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from pydantic import Field

from dsrl.core.component import component
from dsrl.core.errors import UserError
from dsrl.infra.ray.base import OwnRay, Ray, Say
from dsrl.infra.ray.node_child import towards
from dsrl.infra.ray.start import started
from dsrl.infra.slurm.commands import allocation, ask

FIRST_PORT, PORTS, RANGES = 20000, 20, 400
"""Jobs share nodes: the ports of each follow from its number, below those that systems hand out by themselves."""


@component("cluster.slurm")
class SlurmRay(OwnRay):
    """Started on every node of the allocation by one step of the job, which ends with us."""

    port: int | None = Field(default=None, ge=1024, le=65000)
    """Of the head, and a few after it on every node; None: from the job's number."""

    def check(self) -> None:
        """We are inside an allocation."""
        if allocation() is None:
            raise UserError(
                "cluster=slurm runs inside a Slurm allocation, and this is none",
                got="no SLURM_JOB_ID",
                next_step="dsrl submit ... cluster=slurm slurm.nodes=2, or cluster=local for the GPUs of this machine",
            )

    def num_nodes(self) -> int:
        return int(os.environ.get("SLURM_JOB_NUM_NODES", 1))

    def open(self, folder: Path, python: str = sys.executable, say: Say = print) -> AbstractContextManager[Ray]:
        self.check()
        names = ask("scontrol", "show", "hostnames").split()
        port = self.port or port_of(str(allocation()))
        told = self.told(head=own_address(names), port=port, fixed_ports=True)
        return started(told, step(len(names)), len(names), folder, python, say, self.runtime_env)


def step(nodes: int) -> list[str]:
    """How a program is run once on every node, beside whatever else runs in the allocation."""
    cpus = os.environ.get("SLURM_CPUS_PER_TASK")
    shared = ["--overlap", "--mem=0", "--kill-on-bad-exit=1", "--input=all", "--label", "--cpu-bind=none"]
    spread = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--distribution=block"]
    return ["srun", *shared, *spread, *([f"--cpus-per-task={cpus}"] if cpus else [])]


def own_address(names: list[str]) -> str:
    """Of this node, as the others see it: a name may lead to a loopback address, and Ray trusts no name."""
    others = [name for name in names if name.partition(".")[0] != socket.gethostname().partition(".")[0]]
    return towards(others[0]) if others else "127.0.0.1"


def port_of(job: str) -> int:
    """The head's port in this job."""
    return FIRST_PORT + int(job) % RANGES * PORTS
