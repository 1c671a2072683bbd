"""Where the Ray for distributed work comes from; a stage receives it from the config as `cluster: ${cluster}`."""

import sys
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from dsrl.core.component import Component, component

Notify = Callable[[str], None]
"""Shows a line of progress to the user."""


@dataclass(frozen=True)
class RunningRay:
    """A Ray all of whose nodes have joined."""

    address: str
    """HOST:PORT of the head, for `ray.init(address=...)`."""
    nodes: int
    """Number of nodes, including a head without GPUs."""
    cpus: int
    """Sum over all nodes."""
    gpus: int
    """Sum over all nodes."""
    environment: dict[str, str]
    """Complete environment of a process that connects to it, with address and token."""
    runtime_env: dict[str, Any] = field(default_factory=dict)
    """Argument of `ray.init(runtime_env=...)`."""
    gpus_by_node: tuple[int, ...] = ()
    """GPUs of each node, in descending order."""


@component(None)
class Cluster(Component):
    """Base class of the sources of a Ray. Results don't depend on it: stages exclude it from their key."""

    elsewhere: ClassVar[bool] = False
    """Whether it has other GPUs than this machine."""

    ready_seconds: float = Field(default=180.0, gt=0)
    """How long to wait for all nodes."""
    runtime_env: dict[str, Any] = Field(default_factory=dict)
    """Ray's runtime environment of workers on all nodes: {env_vars: {NAME: value}, working_dir: ...}."""

    @abstractmethod
    def open(
        self, folder: Path, python: str = sys.executable, notify: Notify = print
    ) -> AbstractContextManager[RunningRay]:
        """Provide a Ray with all its nodes, and stop what was started on exit. Logs go to `folder`; `python` is an
        interpreter that has Ray. Raises `StageFailed` if the nodes don't join in time."""

    def num_nodes(self) -> int:
        """Number of nodes, as far as it is known before `open`."""
        return 1

    def with_resources(self, cpus: int, gpus: int) -> "Cluster":  # noqa: ARG002
        """A copy whose nodes declare at least this many CPUs, and this many GPUs. Ray never checks the declared numbers
        against the hardware, and never schedules a task that needs more. A Ray that exists already stays as it is."""
        return self

    def check(self) -> None:
        """Raise `UserError` for what is known to be wrong before any work starts."""
