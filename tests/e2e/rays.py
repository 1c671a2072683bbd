"""Find an interpreter with Ray, and leftovers of Ray clusters that dsrl started."""

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from dsrl.infra.ray.node_child import FOLDER_VARIABLE
from tests.command import CHECKOUT


def ray_python() -> str:
    """The interpreter in DSRL_RAY_PYTHON, or that of `make verl`."""
    beside = [str(CHECKOUT / name / "bin" / "python") for name in (".venv-verl",)]
    for place in filter(None, [os.environ.get("DSRL_RAY_PYTHON"), *beside]):
        known = Path(place).is_file()
        if known and subprocess.run([place, "-c", "import ray"], capture_output=True, check=False).returncode == 0:
            return place
    pytest.skip("needs an interpreter with Ray: DSRL_RAY_PYTHON")


def marked() -> set[str]:
    """Ids of the processes of Ray clusters that dsrl started."""
    found: set[str] = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            found |= {path.parent.name} if f"{FOLDER_VARIABLE}=".encode() in path.read_bytes() else set()
    return found


def abandoned() -> set[str]:
    """Folders of Ray clusters without any living process."""
    alive = b"".join(_environment(path) for path in Path("/proc").glob("[0-9]*/environ"))
    return {path.name for path in Path("/tmp").glob("dsrl-ray-*") if f"{FOLDER_VARIABLE}={path}/".encode() not in alive}  # noqa: S108


def _environment(path: Path) -> bytes:
    with contextlib.suppress(OSError):  # it has just ended
        return path.read_bytes()
    return b""
