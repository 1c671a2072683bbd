"""A Ray over all nodes of the Slurm allocation that this process runs in."""

import os
import socket
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from pydantic import Field

from dsrl.core.component import component
from dsrl.core.errors import StageFailed, UserError
from dsrl.infra.ray.base import Notify, RunningRay
from dsrl.infra.ray.node_child import address_towards
from dsrl.infra.ray.own import OwnRay, start_ray
from dsrl.infra.slurm.commands import allocation, ask

FIRST_PORT, PORTS_PER_JOB, PORT_RANGES = 20000, 20, 400
"""Jobs may share a node, so each derives its ports from its number; all are below the ephemeral range (32768)."""


@component("cluster.slurm")
class SlurmRay(OwnRay):
    """Started on every node of the allocation by one job step, which ends with this process."""

    port: int | None = Field(default=None, ge=1024, le=65000)
    """Port of the head, followed by a few more on every node; None: derived from the job's number."""

    def check(self) -> None:
        if allocation() is None:
            raise UserError(
                "cluster=slurm needs a Slurm allocation",
                got="SLURM_JOB_ID is not set",
                next_step="dsrl submit ... cluster=slurm slurm.nodes=2, or cluster=local for the GPUs of this machine",
            )

    def num_nodes(self) -> int:
        return int(os.environ.get("SLURM_JOB_NUM_NODES", 1))

    def open(
        self, folder: Path, python: str = sys.executable, notify: Notify = print
    ) -> AbstractContextManager[RunningRay]:
        self.check()
        names = ask("scontrol", "show", "hostnames").split()
        port = self.port or port_of_job(str(allocation()))
        settings = self.node_settings(head=own_address(names), port=port, fixed_ports=True)
        return start_ray(settings, srun(len(names)), len(names), folder, python, notify, self.runtime_env)


def srun(nodes: int) -> list[str]:
    """The command that runs a program once on every node, beside the other steps of the allocation."""
    cpus = os.environ.get("SLURM_CPUS_PER_TASK")
    shared = ["--overlap", "--mem=0", "--kill-on-bad-exit=1", "--input=all", "--label", "--cpu-bind=none"]
    spread = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--distribution=block"]
    return ["srun", *shared, *spread, *([f"--cpus-per-task={cpus}"] if cpus else [])]


def own_address(names: list[str]) -> str:
    """This node's IP address as the other nodes see it. A host name may resolve to a loopback address.

    Node names need not be host names: one that doesn't resolve is looked up in Slurm (`NodeAddr`). Raises `StageFailed`
    if the address of no other node can be found.
    """
    others = [name for name in names if name.partition(".")[0] != socket.gethostname().partition(".")[0]]
    if not others:
        return "127.0.0.1"
    unknown = None
    for host in (others[0], node_address(others[0])):
        try:
            return address_towards(host)
        except OSError as error:
            unknown = error
    raise StageFailed(
        f"cluster=slurm: the address of node {others[0]} can't be found",
        got=unknown,
        next_step="`scontrol show node` must list a NodeAddr that resolves on this node",
    )


def node_address(name: str) -> str:
    """The address under which Slurm itself reaches a node; the node's name if Slurm doesn't say."""
    words = dict(word.partition("=")[::2] for word in ask("scontrol", "show", "node", name).split())
    return words.get("NodeAddr", name)


def port_of_job(job: str) -> int:
    """The head's port for this Slurm job."""
    return FIRST_PORT + int(job) % PORT_RANGES * PORTS_PER_JOB
