"""A Ray to run distributed work on, whoever started it; and how long to wait for its nodes."""

import json
import os
import subprocess
import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, Any

from pydantic import Field

from dsrl.errors import StageFailed
from dsrl.part import Part, part

FOREIGN = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_NAMESPACE")
"""Variables that would lead a process of ours to somebody else's Ray."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}

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


def environment(**ours: str) -> dict[str, str]:
    """This process's variables without those of a foreign Ray, and with these."""
    return {**{name: value for name, value in os.environ.items() if name not in FOREIGN}, **QUIET, **ours}


def ready(
    address: str, nodes: int, seconds: float, python: str, variables: Mapping[str, str], still: Callable[[], str | None]
) -> dict[str, int]:
    """Wait until so many nodes are alive; returns `alive`, `cpus` and `gpus`. `still` says why it is no use to wait any
    longer. Raises `StageFailed`."""
    deadline = time.monotonic() + seconds
    said: dict[str, Any] = {}
    with _looks(address, python, variables) as looks:
        while time.monotonic() < deadline:
            with suppress(Empty):
                said = json.loads(looks.get(timeout=0.5))
            if said.get("alive", 0) >= nodes:
                return said
            if reason := still():
                raise StageFailed("Ray can't be used", got=reason)
            if "refused" in said:
                raise _refused(address, said["refused"])
    alive = f"{said['alive']} of {nodes} nodes" if "alive" in said else said.get("error", "nothing was heard of it")
    raise StageFailed(
        f"Ray isn't ready after {seconds:g} s", got=alive, next_step="cluster.ready_seconds=...; the logs say why"
    )


def _refused(address: str, reason: str) -> StageFailed:
    return StageFailed(
        f"the Ray at {address} refuses us",
        got=reason.partition(" Ensure that")[0],
        next_step="the variable named in cluster.token_env needs the token that it was started with",
    )


@contextmanager
def _looks(address: str, python: str, variables: Mapping[str, str]) -> Iterator["SimpleQueue[str]"]:
    """What a child says that looks at Ray again and again."""
    script = str(Path(__file__).with_name("alive.py"))
    process = subprocess.Popen(
        [python, "-P", script, address],
        env=dict(variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    lines: SimpleQueue[str] = SimpleQueue()
    assert process.stdout is not None
    reader = Thread(target=_read, args=[process.stdout, lines], daemon=True)
    reader.start()
    try:
        yield lines
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()


def _read(stream: IO[str], lines: "SimpleQueue[str]") -> None:
    for line in stream:
        lines.put(line)
