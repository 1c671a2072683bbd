"""Wait until all nodes of a Ray have joined, however it was started."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from dsrl.core.child_process import HUB_SECRETS, inherited_environment
from dsrl.core.errors import StageFailed, UserError
from dsrl.infra.ray.base import RunningRay

ADDRESS_VARIABLES = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_NAMESPACE")
"""Variables by which a process would connect to another Ray."""


def ray_environment(**variables: str) -> dict[str, str]:
    """This process's environment without the address of another Ray, and with these variables."""
    inherited = inherited_environment(os.environ, HUB_SECRETS)
    # srun and node_child need Slurm's variables
    slurm = {name: value for name, value in os.environ.items() if name.startswith("SLURM_")}
    own = {name: value for name, value in (inherited | slurm).items() if name not in ADDRESS_VARIABLES}
    return {**own, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", **variables}


def require_ray(python: str) -> None:
    """Raise `UserError` if this interpreter can't import Ray."""
    probe = "import sys, importlib.util as u; sys.exit(u.find_spec('ray') is None)"
    try:
        missing = subprocess.run([python, "-P", "-c", probe], capture_output=True, check=False).returncode
    except OSError as error:
        raise UserError("can't run the Python interpreter", got=f"{python}: {error.strerror}") from error
    if missing:
        raise UserError("Ray isn't installed", got=python, next_step="pip install 'dsrl[ray]' in that environment")


def wait_until_ready(
    address: str,
    nodes: int,
    seconds: float,
    python: str,
    environment: Mapping[str, str],
    start_failure: Callable[[], str | None],
    where_to_look: str,
) -> dict[str, Any]:
    """Wait until this many nodes are alive; returns `alive`, `cpus`, `gpus` and `gpus_by_node`.

    `start_failure` returns why waiting is pointless, or None; `where_to_look` goes into the error's next step. Raises
    `StageFailed`.
    """
    deadline = time.monotonic() + seconds
    answer: dict[str, Any] = {}
    with _queries(address, python, environment) as answers:
        while time.monotonic() < deadline:
            with suppress(Empty):
                answer = json.loads(answers.get(timeout=0.5))
            if answer.get("alive", 0) >= nodes:
                return answer
            if reason := start_failure():
                raise StageFailed(
                    "Ray didn't start", got=reason, next_step="if a port is in use, give cluster.port=..."
                )
            if "refused" in answer:
                raise StageFailed(
                    f"the Ray at {address} rejects the token",
                    got=answer["refused"].partition(" Ensure that")[0],
                    next_step="set the variable named in cluster.token_env to the token that it was started with",
                )
    alive = f"{answer['alive']} of {nodes} nodes" if "alive" in answer else answer.get("error", "no answer")
    raise StageFailed(
        f"Ray isn't ready after {seconds:g} s",
        got=alive,
        next_step=f"raise cluster.ready_seconds, or see {where_to_look}",
    )


def describe_nodes(nodes: Mapping[str, Any]) -> str:
    """`2 nodes, 16 CPUs, 8 GPUs`."""
    return f"{nodes['alive']} nodes, {nodes['cpus']} CPUs, {nodes['gpus']} GPUs"


def running_ray(
    address: str, nodes: Mapping[str, Any], environment: Mapping[str, str], runtime_env: Mapping[str, Any]
) -> RunningRay:
    """The Ray described by the result of `wait_until_ready`."""
    return RunningRay(
        address=address,
        nodes=nodes["alive"],
        cpus=nodes["cpus"],
        gpus=nodes["gpus"],
        environment={**environment, "RAY_ADDRESS": address},
        runtime_env=dict(runtime_env),
        gpus_by_node=tuple(nodes["gpus_by_node"]),
    )


@contextmanager
def _queries(address: str, python: str, environment: Mapping[str, str]) -> Iterator["SimpleQueue[str]"]:
    """The lines printed by `alive_child.py`, as they come."""
    process = subprocess.Popen(
        [python, "-P", str(Path(__file__).with_name("alive_child.py")), address],
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    output, lines = process.stdout, SimpleQueue[str]()

    def read() -> None:
        for line in output:
            lines.put(line)

    reader = Thread(target=read, daemon=True)
    reader.start()
    try:
        yield lines
    finally:
        process.kill()
        process.wait()
        reader.join()
        output.close()
