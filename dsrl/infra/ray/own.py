"""A Ray that dsrl starts and stops: on this machine, or through Slurm on every node of an allocation."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from typing import Any

from pydantic import Field

from dsrl.core.child_process import tail
from dsrl.core.component import component
from dsrl.infra.ray.base import Cluster, Notify, RunningRay
from dsrl.infra.ray.ready import describe_nodes, ray_environment, require_ray, running_ray, wait_until_ready

NODE_CHILD = Path(__file__).with_name("node_child.py")
LOG = "ray.log"
STOP_SECONDS = 20.0
STEP_VARIABLES = (
    *("SLURM_STEP", "SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NTASKS_PER_NODE", "SLURM_TASKS_PER_NODE"),
    *("SLURM_CPU_BIND", "SLURM_DISTRIBUTION"),
)
"""Prefixes of variables that describe the enclosing job step; a nested `srun` would take them for its own options."""


@component(None)
class OwnRay(Cluster):
    """Base class of a Ray that dsrl starts, and whose resources it therefore declares."""

    cpus: int | None = Field(default=None, ge=1)
    """On each node; None: what Slurm allocated, or all that this process may use."""
    gpus: int | None = Field(default=None, ge=0)
    """On each node; None: what Slurm allocated, or all that are visible."""
    object_store_gb: float | None = Field(default=None, gt=0)
    """Shared memory for objects on each node; None: Ray's default, 30 % of the node's memory."""

    def with_resources(self, cpus: int, gpus: int) -> "OwnRay":
        available = os.environ.get("SLURM_CPUS_PER_TASK") or len(os.sched_getaffinity(0))
        return replace(self, cpus=self.cpus or max(cpus, int(available)), gpus=self.gpus or gpus)

    def node_settings(self, **place: Any) -> dict[str, Any]:
        """Settings for `node_child.py` on every node."""
        names = ("cpus", "gpus", "object_store_gb", "ready_seconds")
        return {**place, **{name: getattr(self, name) for name in names}}


@component("cluster.local")
class LocalRay(OwnRay):
    """A Ray on this machine with its own port, folder and token, so that it can run beside another one."""

    def open(
        self, folder: Path, python: str = sys.executable, notify: Notify = print
    ) -> AbstractContextManager[RunningRay]:
        settings = self.node_settings(head="127.0.0.1", port=free_port(), fixed_ports=False)
        return start_ray(settings, [], 1, folder, python, notify, self.runtime_env)


def free_port() -> int:
    """A TCP port that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def start_ray(
    settings: Mapping[str, Any],
    launcher: Sequence[str],
    nodes: int,
    folder: Path,
    python: str,
    notify: Notify,
    runtime_env: Mapping[str, Any],
) -> Iterator[RunningRay]:
    """Run `node_child.py` with these settings on every node, and stop it on exit. `launcher` is the command that runs
    a program once on each node (`srun ...`); empty for this machine only."""
    require_ray(python)
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    log_path = folder / LOG
    address = f"{settings['head']}:{settings['port']}"
    environment = ray_environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token_hex(32))
    temporary = tempfile.mkdtemp(prefix="dsrl-ray-", dir="/tmp")  # short: a Unix socket's path may have 107 bytes
    settings = {**settings, "temporary": temporary, "logs": str(folder / "ray")}
    step_environment = {name: value for name, value in environment.items() if not name.startswith(STEP_VARIABLES)}
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [*launcher, python, "-P", str(NODE_CHILD)],
            env={**step_environment, "DSRL_RAY": json.dumps(settings), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,  # its end stops Ray, also when this process is killed
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def start_failure() -> str | None:
        if process.poll() is None:
            return None
        return f"exit code {process.returncode}; the end of {log_path}:\n{tail(log_path)}"

    try:
        alive = wait_until_ready(
            address, nodes, settings["ready_seconds"], python, environment, start_failure, str(log_path)
        )
        notify(f"Ray {address}: {describe_nodes(alive)}")
        yield running_ray(address, alive, environment, runtime_env)
    finally:
        stop(process)
        with suppress(OSError):
            Path(temporary).rmdir()


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Close standard input, which makes every node shut down; send SIGTERM and SIGKILL if it takes too long."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        if number is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
            return
