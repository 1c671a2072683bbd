"""Whether a Ray is there, with all its nodes, whoever started it."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, Any

from dsrl.core.errors import StageFailed
from dsrl.infra.ray.base import Ray

FOREIGN = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_NAMESPACE")
"""Variables that would lead a process of ours to somebody else's Ray."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


def environment(**ours: str) -> dict[str, str]:
    """This process's variables without those of a foreign Ray, and with these."""
    return {**{name: value for name, value in os.environ.items() if name not in FOREIGN}, **QUIET, **ours}


def ready(
    address: str,
    nodes: int,
    seconds: float,
    python: str,
    variables: Mapping[str, str],
    still: Callable[[], str | None],
    look: str,
) -> dict[str, Any]:
    """Wait until so many nodes are alive; returns `alive`, `cpus`, `gpus` and `gpus_by_node`. `still` says
    why it is no use to wait any longer, `look` where to look when they don't come. Raises `StageFailed`."""
    deadline = time.monotonic() + seconds
    said: dict[str, Any] = {}
    with _looks(address, python, variables) as looks:
        while time.monotonic() < deadline:
            with suppress(Empty):
                said = json.loads(looks.get(timeout=0.5))
            if said.get("alive", 0) >= nodes:
                return said
            if reason := still():
                raise StageFailed(
                    "Ray can't be used", got=reason, next_step="where a port is in use: cluster.port=..., a free one"
                )
            if "refused" in said:
                raise _refused(address, said["refused"])
    alive = f"{said['alive']} of {nodes} nodes" if "alive" in said else said.get("error", "nothing was heard of it")
    raise StageFailed(
        f"Ray isn't ready after {seconds:g} s", got=alive, next_step=f"cluster.ready_seconds=..., or look into {look}"
    )


def words(found: Mapping[str, Any]) -> str:
    """`2 nodes, 16 CPUs, 8 GPUs`."""
    return f"{found['alive']} nodes, {found['cpus']} CPUs, {found['gpus']} GPUs"


def found_ray(address: str, found: Mapping[str, Any], driver: dict[str, str], runtime_env: Mapping[str, Any]) -> Ray:
    """A Ray as it answered."""
    sizes = tuple(found["gpus_by_node"])
    return Ray(address, found["alive"], found["cpus"], found["gpus"], driver, dict(runtime_env), sizes)


def _refused(address: str, reason: str) -> StageFailed:
    return StageFailed(
        f"the Ray at {address} refuses us",
        got=reason.partition(" Ensure that")[0],
        next_step="the variable named in cluster.token_env needs the token that it was started with",
    )


@contextmanager
def _looks(address: str, python: str, variables: Mapping[str, str]) -> Iterator["SimpleQueue[str]"]:
    """What a child says that looks at Ray again and again."""
    script = str(Path(__file__).with_name("alive_child.py"))
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
