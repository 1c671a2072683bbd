"""The Ray on which distributed work runs, as it is handed to a stage by the config: `cluster: ${cluster}`."""

import os
import sys
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from dsrl.core.component import Component, component

Say = Callable[[str], None]


@dataclass(frozen=True)
class Ray:
    """A Ray whose nodes are all there."""

    address: str
    """HOST:PORT of the head, for `ray.init(address=...)`."""
    nodes: int
    """All of them; the head may be one without GPUs."""
    cpus: int
    """Of all nodes."""
    gpus: int
    """Of all nodes."""
    environment: dict[str, str]
    """The whole environment of a process that is to use it: address and token, and no other Ray's."""
    runtime_env: dict[str, Any] = field(default_factory=dict)
    """For `ray.init(runtime_env=...)`: what workers on other nodes find."""
    gpus_by_node: tuple[int, ...] = ()
    """Of each node, most first."""


@component(None)
class Cluster(Component):
    """Where a Ray comes from. It changes nothing in a result: a stage names its field for it among its speed knobs."""

    elsewhere: ClassVar[bool] = False
    """Whether its GPUs are others than this machine's."""

    ready_seconds: float = Field(default=180.0, gt=0)
    """To wait for all nodes."""
    runtime_env: dict[str, Any] = Field(default_factory=dict)
    """Of Ray, for workers on all nodes: {env_vars: {NAME: value}, working_dir: ...}."""

    @abstractmethod
    def open(self, folder: Path, python: str = sys.executable, say: Say = print) -> AbstractContextManager[Ray]:
        """A Ray that is there, and of which nothing is left afterwards that we started. `folder` gets the logs;
        `python` is the interpreter that has Ray. Raises `StageFailed` where the nodes don't come."""

    def num_nodes(self) -> int:
        """As far as is known before it is open."""
        return 1

    def declaring(self, cpus: int, gpus: int) -> "Cluster":  # noqa: ARG002
        """The same, whose nodes say that they have at least so many CPUs, and so many GPUs: Ray takes their word, and
        never begins what claims more. A Ray that is there already has said what it has."""
        return self

    def check(self) -> None:
        """Raises `UserError` for what can be known before work."""


@component(None)
class OwnRay(Cluster):
    """One that is started by us, and so has what we say."""

    cpus: int | None = Field(default=None, ge=1)
    """On each node; None: what Slurm gave us, or all that this process may use."""
    gpus: int | None = Field(default=None, ge=0)
    """On each node; None: what Slurm gave us, or all that are visible."""
    object_store_gb: float | None = Field(default=None, gt=0)
    """Shared memory for objects, on each node; None: 30 % of its memory, as Ray has it."""

    def declaring(self, cpus: int, gpus: int) -> "OwnRay":
        given = os.environ.get("SLURM_CPUS_PER_TASK") or len(os.sched_getaffinity(0))
        return replace(self, cpus=self.cpus or max(cpus, int(given)), gpus=self.gpus or gpus)

    def told(self, **place: Any) -> dict[str, Any]:
        """What the program on every node is told."""
        names = ("cpus", "gpus", "object_store_gb", "ready_seconds")
        return {**place, **{name: getattr(self, name) for name in names}}
