"""Locks on requests, so that two processes that share a reply cache do not both pay for the same reply.

A lock is a POSIX lock on one byte of a file that stays empty. It takes a microsecond, works between machines where the
file system's locks do, and is released when its process ends. On a file system without locks every lock is granted:
two processes that make the same request at the same moment then both pay.
"""

import fcntl
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path
from threading import Lock

BYTES = 1 << 40
MAX_LOCKS = 2000
"""Further locks are granted without locking a byte: the kernel scans the locks of a file one by one."""


def open_lock(path: Path) -> int:
    """A descriptor of a lock file, created if needed; everyone who may write to its folder may lock it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    with suppress(PermissionError):  # the file belongs to another user, whose process has set the mode
        os.fchmod(descriptor, path.parent.stat().st_mode & 0o666)
    return descriptor


class RequestLocks:
    """The locks of this process. Create one object per file and process: closing any of them frees all locks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._counts: Counter[int] = Counter()
        self._locked: set[int] = set()
        self._file: tuple[int, int] | None = None
        """Descriptor, and the process that opened it."""
        self._mutex = Lock()

    @property
    def is_open(self) -> bool:
        return self._file is not None

    def acquire(self, digest: str) -> bool:
        """False if another process has the lock. The same process may acquire it any number of times."""
        offset = int(digest[:10], 16) % BYTES
        with self._mutex:
            if not self._counts[offset] and not self._lock_byte(offset):
                return False
            self._counts[offset] += 1
            return True

    def release(self, digest: str) -> None:
        offset = int(digest[:10], 16) % BYTES
        with self._mutex:
            self._counts[offset] -= 1
            if self._counts[offset] <= 0:
                del self._counts[offset]
                if self._file is not None and offset in self._locked:
                    self._locked.remove(offset)
                    fcntl.lockf(self._file[0], fcntl.LOCK_UN, 1, offset)

    def close(self) -> None:
        with self._mutex:
            if self._file is not None:
                os.close(self._file[0])
            self._reset()

    def _reset(self) -> None:
        self._file = None
        self._counts.clear()
        self._locked.clear()

    def _lock_byte(self, offset: int) -> bool:
        if self._file is not None and self._file[1] != os.getpid():  # a forked child inherits no locks
            self._reset()
        if len(self._locked) >= MAX_LOCKS:
            return True
        try:
            if self._file is None:
                self._file = open_lock(self._path), os.getpid()
        except OSError:  # disk full or no permission: the cache itself reports that
            return True
        try:
            fcntl.lockf(self._file[0], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:  # a file system without locks
            return True
        self._locked.add(offset)
        return True
