"""Ray's daemons as children of ours, on this node or, by Slurm, on all nodes of the allocation."""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

from dsrl.core.errors import UserError
from dsrl.infra.ray.base import Ray, Say
from dsrl.infra.ray.ready import environment, found_ray, ready, words

NODE = Path(__file__).with_name("node_child.py")
LOG = "ray.log"
STOP_SECONDS = 20.0
LINES = 12


@contextmanager
def started(
    told: Mapping[str, Any],
    before: Sequence[str],
    nodes: int,
    folder: Path,
    python: str,
    say: Say,
    runtime_env: Mapping[str, Any],
) -> Iterator[Ray]:
    """A Ray of our own, with a token of its own. `before` runs the program on every node, `told` is what it is told."""
    require(python)
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    address = f"{told['head']}:{told['port']}"
    variables = environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token_hex(32))
    temporary = tempfile.mkdtemp(prefix="dsrl-ray-", dir="/tmp")  # short: sockets' paths have 107 bytes
    said = {**told, "temporary": temporary, "logs": str(folder / "ray")}
    with (folder / LOG).open("ab") as log:
        process = subprocess.Popen(
            [*before, python, "-P", str(NODE)],
            env={**_for_steps(variables), "DSRL_RAY": json.dumps(said), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,  # its end, also when we are killed, ends Ray
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        found = ready(
            address, nodes, told["ready_seconds"], python, variables, lambda: _over(process, folder), str(folder / LOG)
        )
        say(f"Ray {address}: {words(found)}")
        driver = {**variables, "RAY_ADDRESS": address}
        yield found_ray(address, found, driver, runtime_env)
    finally:
        stop(process)
        with suppress(OSError):
            Path(temporary).rmdir()


def require(python: str) -> None:
    """Raises `UserError` where that interpreter has no Ray."""
    probe = "import sys, importlib.util as u; sys.exit(u.find_spec('ray') is None)"
    try:
        missing = subprocess.run([python, "-P", "-c", probe], capture_output=True, check=False).returncode
    except OSError as error:
        raise UserError("no such interpreter", got=f"{python}: {error.strerror}") from error
    if missing:
        raise UserError("Ray isn't installed", got=python, next_step="pip install 'dsrl[ray]' in that environment")


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Close its input, which ends every node; after a while by force."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    for sign in (None, signal.SIGTERM, signal.SIGKILL):
        if sign is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
            return


def tail(folder: Path) -> str:
    """The end of what the nodes wrote."""
    path = folder / LOG
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    return "\n".join(line[:300] for line in lines[-LINES:])


def _over(process: "subprocess.Popen[bytes]", folder: Path) -> str | None:
    if process.poll() is None:
        return None
    return f"exit code {process.returncode}; the end of {folder / LOG}:\n{tail(folder)}"


STEP = (
    "SLURM_NTASKS",
    "SLURM_NPROCS",
    "SLURM_NTASKS_PER_NODE",
    "SLURM_TASKS_PER_NODE",
    "SLURM_CPU_BIND",
    "SLURM_DISTRIBUTION",
)


def _for_steps(variables: Mapping[str, str]) -> dict[str, str]:
    """A step within a step asks for itself, not for what the outer one was given."""
    return {name: value for name, value in variables.items() if not name.startswith(("SLURM_STEP", *STEP))}
