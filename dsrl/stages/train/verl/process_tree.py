"""Find and kill every descendant of a process. Linux only, as veRL is.

After `adopt_orphans`, a descendant whose parent has exited becomes a child of the calling process instead of init.
"""

import ctypes
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG = 36, 1
PAUSE_SECONDS, MAX_ROUNDS = 0.05, 100


def adopt_orphans() -> None:
    """Make this process the reaper of all its descendants."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent exits."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def descendants(ancestor: int) -> list[int]:
    """Process ids of all living descendants."""
    parents = _parents()
    found, generation = [], {ancestor}
    while generation:
        generation = {child for child, parent in parents.items() if parent in generation}
        found += sorted(generation)
    return found


def kill_descendants() -> None:
    """Kill every descendant of this process, including those started meanwhile."""
    for _ in range(MAX_ROUNDS):
        living = descendants(os.getpid())
        if not living:
            return
        for process in living:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(PAUSE_SECONDS)


def _parents() -> dict[int, int]:
    """Process id -> its parent's, without zombies."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            state, parent = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:2]
            if state != "Z":
                found[int(path.parent.name)] = int(parent)
    return found
