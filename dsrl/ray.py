"""The Ray on which distributed work runs, as it is handed to a stage by the config: `cluster: ${cluster}`."""

import sys
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from dsrl.part import Part, part

Say = Callable[[str], None]


@dataclass(frozen=True)
class Ray:
    """A Ray whose nodes are all there."""

    address: str
    """HOST:PORT of the head, for `ray.init(address=...)`."""
    nodes: int
    cpus: int
    """Of all nodes."""
    gpus: int
    """Of all nodes."""
    environment: dict[str, str]
    """The whole environment of a process that is to use it: address and token, and no other Ray's."""
    runtime_env: dict[str, Any] = field(default_factory=dict)
    """For `ray.init(runtime_env=...)`: what workers on other nodes find."""


@part
class Cluster(Part):
    """Where a Ray comes from. It changes nothing in a result: a stage names its field for it among its speed knobs."""

    ready_seconds: float = Field(default=180.0, gt=0)
    """To wait for all nodes."""
    runtime_env: dict[str, Any] = Field(default_factory=dict)
    """Of Ray, for workers on all nodes: {env_vars: {NAME: value}, working_dir: ...}."""

    @abstractmethod
    def open(self, folder: Path, python: str = sys.executable, say: Say = print) -> AbstractContextManager[Ray]:
        """A Ray that is there, and of which nothing is left afterwards that we started. `folder` gets the logs;
        `python` is the interpreter that has Ray. Raises `StageFailed` where the nodes don't come."""

    def check(self) -> None:
        """Raises `UserError` for what can be known before work."""
