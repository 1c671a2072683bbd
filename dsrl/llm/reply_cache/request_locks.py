"""Who is asking for what at this moment: so that two processes that share a store don't both pay for a reply.

A claim is a lock on one byte of a file that stays empty. It costs a microsecond, works between machines where the file
system's locks do, and goes away with its process. Where there are no locks, everybody gets every claim: then two
processes that ask for the same at the same moment both pay.
"""

import fcntl
import os
from collections import Counter
from pathlib import Path
from threading import Lock

from dsrl.llm.reply_cache.locks import open_lock

BYTES = 1 << 40
MOST_LOCKS = 2000
"""Beyond them claims are given without a lock: the kernel looks through all locks of a file one by one."""


class Claims:
    """The claims of this process. Only one object of a process may stand on a file: closing it frees all claims."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: Counter[int] = Counter()
        self._locks: set[int] = set()
        self._file: tuple[int, int] | None = None
        self._lock = Lock()

    @property
    def is_open(self) -> bool:
        return self._file is not None

    def take(self, digest: str) -> bool:
        """Whether this process may ask; the same process may any number of times."""
        where = int(digest[:10], 16) % BYTES
        with self._lock:
            if not self._held[where] and not self._locked(where):
                return False
            self._held[where] += 1
            return True

    def free(self, digest: str) -> None:
        where = int(digest[:10], 16) % BYTES
        with self._lock:
            self._held[where] -= 1
            if self._held[where] <= 0:
                del self._held[where]
                if self._file is not None and where in self._locks:
                    self._locks.remove(where)
                    fcntl.lockf(self._file[0], fcntl.LOCK_UN, 1, where)

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                os.close(self._file[0])
            self._file = None
            self._held.clear()
            self._locks.clear()

    def _locked(self, where: int) -> bool:
        if self._file is None or self._file[1] != os.getpid():  # a forked child inherits no locks
            self._held.clear()
            self._locks.clear()
            self._file = None
        if len(self._locks) >= MOST_LOCKS:
            return True
        try:
            if self._file is None:
                self._file = open_lock(self._path), os.getpid()
        except OSError:  # no room, or no right: the store itself says so
            return True
        try:
            fcntl.lockf(self._file[0], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, where)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:  # a file system without locks
            return True
        self._locks.add(where)
        return True
