"""Everything that a training started itself, found and ended; what its Ray started ends with that.

Linux only, as veRL is. Orphans come back to the process that called `adopt`, so that its tree stays whole.
"""

import ctypes
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

SUBREAPER, PARENT_DEATH_SIGNAL = 36, 1
PAUSE, ROUNDS = 0.05, 100


def adopt() -> None:
    """From now on, whatever descends from this process stays below it, whoever in between ends."""
    ctypes.CDLL(None).prctl(SUBREAPER, 1)


def die_with_parent() -> None:
    """The kernel kills this process as soon as the one that started it is gone."""
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)


def below(ancestor: int) -> list[int]:
    """All living descendants."""
    parents = _parents()
    found, front = [], {ancestor}
    while front:
        front = {child for child, parent in parents.items() if parent in front}
        found += sorted(front)
    return found


def end_all() -> None:
    """Kill every descendant, also those that are born meanwhile."""
    for _ in range(ROUNDS):
        living = below(os.getpid())
        if not living:
            return
        for process in living:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(PAUSE)


def _parents() -> dict[int, int]:
    """Process -> its parent, without those that have ended and only wait to be noticed."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            state, parent = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:2]
            if state != "Z":
                found[int(path.parent.name)] = int(parent)
    return found
