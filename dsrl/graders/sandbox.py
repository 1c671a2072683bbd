"""Runs a program that a model wrote, and its tests, in processes with as few rights as the system can take away."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from dsrl.core.errors import UserError
from dsrl.graders.base import RIGHT, UNDECIDED, WRONG
from dsrl.graders.sandbox_child import NOT_ISOLATED, OUT_OF_TIME, PASSED

PATIENCE = 20.0
"""Wall seconds granted beyond five times the CPU seconds: a busy machine must not decide who is right."""
CHILD = Path(__file__).with_name("sandbox_child.py")


def run(program: str, tests: str, seconds: float, memory_mb: int, require_isolation: bool) -> str:
    """`right` if all tests pass, `undecided` if CPU time runs out, else `wrong`.

    Program and tests run in two processes: the program can't see the tests nor decide the verdict. Both get no
    environment variables, no network, a process table of their own, limits on CPU and memory, and a small folder;
    of other files they can read only Python and the system's libraries. A kernel exploit is not guarded against.

    Raises `UserError` if the system lacks one of these means and `require_isolation` is set.
    """
    limits = {"seconds": seconds, "memory_mb": memory_mb, "require_isolation": require_isolation}
    orders = [json.dumps(order).encode() for order in ({"program": program, **limits}, tests)]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={"PATH": os.defpath, "HOME": folder, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        output = b""
        try:
            message = b"".join(b"%010d" % len(order) + order for order in orders)
            output, _ = process.communicate(message, timeout=5 * seconds + PATIENCE)
        except subprocess.TimeoutExpired:
            pass  # it sleeps
        finally:
            _kill(process)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        status = process.wait()
    if status == NOT_ISOLATED and require_isolation:
        raise UserError(
            "answer.kind=code: this system can't isolate programs that models write",
            got=f"no {output.decode(errors='replace')}",
            allowed="Linux 5.13 or newer with Landlock and user namespaces",
            next_step="allow user namespaces, or accept that programs can read, delete and send your files: "
            "task.answer.require_isolation=false",
        )
    return RIGHT if status == PASSED else UNDECIDED if status in (OUT_OF_TIME, -signal.SIGKILL) else WRONG


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the process and its process group; the kernel then ends what runs in its namespaces."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # all gone
        return
