"""Everything that a training started, found and ended: Ray puts its processes into sessions of their own.

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
SEGMENTS = "/dev/shm/"  # noqa: S108 - where POSIX shared memory lies
LEAKED = ("psm_", "sem.")
"""How Python names its segments and semaphores."""


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


def shared_memory(ancestor: int) -> set[Path]:
    """Segments that a descendant has open. vLLM and loky leave theirs behind when they are killed."""
    found = set()
    for process in below(ancestor):
        with suppress(OSError):  # it has just ended
            text = Path(f"/proc/{process}/maps").read_text(encoding="utf-8", errors="replace")
            found |= {Path(line[line.index(SEGMENTS) :]) for line in text.splitlines() if SEGMENTS in line}
            found |= {*Path(SEGMENTS).glob(f"sem.loky-{process}-*")}
    return {path for path in found if path.name.startswith(LEAKED)}


def end_all(segments: "set[Path] | None" = None) -> None:
    """Kill every descendant, also those that are born meanwhile, and remove the shared memory that they leave."""
    left = (segments or set()) | shared_memory(os.getpid())
    _kill_all()
    for path in left:
        path.unlink(missing_ok=True)


def _kill_all() -> None:
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
