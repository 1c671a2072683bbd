"""Appending to a segment of the calls store, on disks that may be full, read-only or shared."""

import errno
import fcntl
import os
import re
import secrets
import socket
import time
from contextlib import suppress
from pathlib import Path

from dsrl.core.disk_space import LEAST_ROOM, free
from dsrl.core.errors import StageFailed

RESERVE = 4 << 20
"""Bytes kept for the replies that are under way when the disk is full: they are paid for."""


class Writer:
    """Appends to a segment of its own, and holds a lock on it as long as it may.

    Raises `StageFailed` where the disk refuses; the lines may have been written all the same, into the reserve. If
    `broken` is set, the file ends in whole lines or at worst half a one, and this writer must not be used again.
    """

    def __init__(self, folder: Path, fsync: bool) -> None:
        host = host_name()
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        self.path = folder / f"{stamp}-{host}-{os.getpid()}-{secrets.token_hex(8)}.jsonl"
        self.position = 0
        self.num_lines = 0
        self.pid = os.getpid()
        self.broken = False
        self._fsync = fsync
        try:
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        except OSError as error:
            raise self._refused(error) from error
        with suppress(OSError):  # a file system without locks: `dsrl gc` then goes by the age of the file
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._reserve = _reserve(folder)

    def append(self, lines: list[bytes]) -> list[int]:
        """Writes whole lines at once and gives their offsets."""
        data = b"".join(lines)
        full: OSError | None = None
        try:
            self._write(data)
        except OSError as error:
            full = error
            self._rescue(data, error)
        if os.fstat(self._descriptor).st_nlink == 0:
            self.broken = True
            raise Removed(self.path)
        offsets = []
        for line in lines:
            offsets.append(self.position)
            self.position += len(line)
        self.num_lines += len(lines)
        if full is not None:
            raise self._refused(full) from full
        return offsets

    def close(self) -> None:
        os.close(self._descriptor)
        self._give_up_reserve()

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        if self._fsync:
            os.fsync(self._descriptor)

    def _rescue(self, data: bytes, error: OSError) -> None:
        """Writes into the room that was kept for this; raises `StageFailed` if there is none, or not enough."""
        self._take_back()
        try:
            if self._reserve is None:
                raise error
            self._give_up_reserve()
            self._write(data)
        except OSError as last:
            self._take_back()
            self._give_up()
            raise self._refused(last) from last

    def _give_up(self) -> None:
        self.broken = True
        if self.position == 0:
            with suppress(OSError):  # it is empty: nobody minds it
                self.path.unlink()

    def _give_up_reserve(self) -> None:
        if self._reserve is not None:
            os.close(self._reserve)
        self._reserve = None

    def _take_back(self) -> None:
        """So that of one HTTP reply all completions are kept or none."""
        with suppress(OSError):  # the error of the write is the one to tell; readers cut off half a line
            os.ftruncate(self._descriptor, self.position)

    def _refused(self, error: OSError) -> StageFailed:
        folder = self.path.parent
        steps = {
            errno.EROFS: f"{folder} can't be written to: mount it writable, or give another store=...",
            errno.EACCES: f"get the right to write to {folder}, or give another store=...",
            errno.ENOENT: f"{folder} was removed while it was in use: start again",
        }
        room = f"make room for {folder} and start again; all earlier replies are kept"
        return StageFailed("a reply could not be stored", got=error, next_step=steps.get(error.errno or 0, room))


def _reserve(folder: Path) -> int | None:
    """A file without a name that takes up room until it is closed; None where there is little room anyway."""
    path = folder / f".reserve-{secrets.token_hex(8)}"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        path.unlink()
    except OSError:
        return None
    try:
        if free(folder) < LEAST_ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.posix_fallocate(descriptor, 0, RESERVE)
    except (OSError, AttributeError):  # little room, or a system that can't
        os.close(descriptor)
        return None
    return descriptor


class Removed(Exception):
    """The writer's file was taken away; what was written to it has to be written again, elsewhere."""


def host_name() -> str:
    """This machine's name as it stands in the names of segments."""
    return re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname())
