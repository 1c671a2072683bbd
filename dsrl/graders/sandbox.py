"""Runs a program that a model wrote, with its tests, in a process with as few rights as the system can take away."""

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from dsrl.core.errors import UserError
from dsrl.graders.base import RIGHT, UNDECIDED, WRONG

PATIENCE = 20.0
INMATE = Path(__file__).with_name("sandbox_child.py")
OPEN_NETWORK = 77
"""Exit status of a process that was to run without a network and could not close it."""


def run(program: str, tests: str, seconds: float, memory_mb: int, require_isolation: bool) -> str:
    """`right` if all tests pass, `undecided` if CPU time runs out, else `wrong`.

    The process gets no environment variables, an empty folder of its own, limits on CPU, memory, files and processes,
    and where the system allows it no network. A program that passes leaves a word that only the harness knows: to
    exit early proves nothing. This keeps accidents in; it is no wall against an attacker with a kernel exploit.
    """
    with tempfile.TemporaryDirectory() as folder:
        word = secrets.token_hex(16)
        order = {"program": program, "tests": tests, "word": word, "seconds": seconds, "memory_mb": memory_mb}
        status = _run(json.dumps({**order, "require_isolation": require_isolation}), Path(folder), 5 * seconds)
        verdict = Path(folder) / "verdict"
        passed = verdict.is_file() and not verdict.is_symlink() and verdict.read_text(errors="replace") == word
    if status == OPEN_NETWORK and require_isolation:
        raise UserError(
            "answer.require_isolation: this system doesn't let a program be cut off from the network",
            next_step="allow user namespaces, run in a container without network, or require_isolation=false",
        )
    return RIGHT if passed else UNDECIDED if status in (-signal.SIGKILL, -signal.SIGXCPU) else WRONG


def _run(order: str, folder: Path, seconds: float) -> int:
    """The exit status; minus the number of the signal that ended it."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-B", str(INMATE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={"PATH": os.defpath, "HOME": str(folder), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        start_new_session=True,
        text=True,
    )
    try:
        process.communicate(order, timeout=seconds + PATIENCE)
    except subprocess.TimeoutExpired:
        pass  # it sleeps; the end below is for it
    finally:
        _end(process)
    return process.wait()


def _end(process: subprocess.Popen[str]) -> None:
    """End the process and whatever it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # all gone
        return
