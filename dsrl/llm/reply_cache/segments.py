"""Segment files of the reply cache: JSON lines with checksums, each file appended to by one writer only."""

import errno
import fcntl
import json
import logging
import os
import re
import secrets
import socket
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsrl.core.disk_space import MIN_FREE_BYTES, free
from dsrl.core.errors import StageFailed, UserError

VERSION = 1
START = b'{"v":%d,"id":"' % VERSION
SUM = b'","sum":"'
SUM_LENGTH = 8
ANY_VERSION = re.compile(rb'\{"v":(\d+),')
RESERVE_BYTES = 4 << 20
"""Disk space set aside for the replies in flight when the disk becomes full: they are paid for."""

log = logging.getLogger(__name__)


def encode(record_id: str, record: Mapping[str, Any]) -> bytes:
    """One line: version, id and checksum at fixed places, so that the index is built without parsing the rest."""
    rest = b'",' + json.dumps(record, separators=(",", ":")).encode()[1:]
    return START + record_id.encode() + SUM + _checksum(record_id.encode(), rest) + rest + b"\n"


def record_id(line: bytes) -> bytes | None:
    """The id of an intact line; None if it is damaged."""
    end = line.find(b'"', len(START))
    name, rest = line[len(START) : end], line[end + len(SUM) + SUM_LENGTH : -1]
    expected = START + name + SUM + _checksum(name, rest)
    return name if line.startswith(expected) and line.endswith(b"}\n") else None


def _checksum(name: bytes, rest: bytes) -> bytes:
    return b"%08x" % zlib.crc32(rest, zlib.crc32(name))


def check_version(path: Path, number: int, line: bytes) -> None:
    """Raise `UserError` for a line of a newer format version."""
    version = ANY_VERSION.match(line)
    if version and int(version[1]) > VERSION:
        raise UserError(
            f"{path}, line {number}: written by a newer dsrl",
            got=f"version {int(version[1])}",
            allowed=f"up to version {VERSION}",
            next_step="update dsrl, or give another store",
        )


def is_sealed(path: Path) -> bool:
    """Whether no process will append to the file any more, as far as the file system's locks show.

    An empty file is never sealed: its writer locks it before the first line. Raises FileNotFoundError.
    """
    if path.stat().st_size == 0:
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # locked, or a file system without locks, where a writer cannot be ruled out
        return False
    finally:
        os.close(descriptor)
    return True


def host_name() -> str:
    """This machine's name in the form used in file names."""
    return re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname())


@dataclass
class Segment:
    """One file, and how far it has been read."""

    path: Path
    position: int = 0
    """Bytes read; what a writer adds later is found behind it."""
    num_lines: int = 0
    reported: int = -1
    """Position at which an unfinished line was last reported, so that it is reported once."""
    sealed: bool = False
    """No process will append to it any more."""

    def scan(self) -> Iterator[tuple[bytes, int, int]]:
        """(id, offset, length) of the lines since the last scan.

        A last line without its end is still being written, or was left by a killed process: it is skipped and read
        again next time. A damaged line in the middle is skipped. Both are logged.
        """
        with self.path.open("rb") as file:
            file.seek(self.position)
            for line in file:
                if not line.endswith(b"\n"):
                    self._report_tail(len(line))
                    return
                offset, self.position = self.position, self.position + len(line)
                self.num_lines += 1
                name = record_id(line)
                if name is not None:
                    yield name, offset, len(line)
                    continue
                check_version(self.path, self.num_lines, line)
                log.warning(
                    "%s, line %d: damaged; its completion counts as missing and is requested again where it is "
                    "needed; `dsrl gc yes=true` rewrites the file without it",
                    *(self.path, self.num_lines),
                )

    def _report_tail(self, length: int) -> None:
        if self.reported != self.position and is_sealed(self.path):
            log.warning(
                "%s: the last %d bytes are an unfinished line of a killed writer and are ignored; "
                "`dsrl gc yes=true` removes them",
                *(self.path, length),
            )
            self.reported = self.position


class SegmentRemoved(Exception):
    """The writer's file was deleted; what was appended must be written again, to a new file."""


class SegmentWriter:
    """Appends to a segment of its own, with a lock on the file if the file system has locks.

    Raises `StageFailed` if the disk refuses; the lines may still have been written, into the reserved space. If
    `broken` is set, the file ends in intact lines or at worst half a line, and the writer must not be used again.
    """

    def __init__(self, folder: Path, fsync: bool) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        self.path = folder / f"{stamp}-{host_name()}-{os.getpid()}-{secrets.token_hex(8)}.jsonl"
        self.position = 0
        self.num_lines = 0
        self.pid = os.getpid()
        self.broken = False
        self._fsync = fsync
        try:
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        except OSError as error:
            raise self._not_stored(error) from error
        with suppress(OSError):  # a file system without locks: `dsrl gc` then goes by the age of the file
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._reserve = _reserve_space(folder)

    def append(self, lines: list[bytes]) -> list[int]:
        """Write whole lines at once and return their offsets. Raises `SegmentRemoved` if the file was deleted."""
        data = b"".join(lines)
        full: OSError | None = None
        try:
            self._write(data)
        except OSError as error:
            full = error
            self._write_into_reserve(data, error)
        if os.fstat(self._descriptor).st_nlink == 0:
            self.broken = True
            raise SegmentRemoved(self.path)
        offsets = []
        for line in lines:
            offsets.append(self.position)
            self.position += len(line)
        self.num_lines += len(lines)
        if full is not None:
            raise self._not_stored(full) from full
        return offsets

    def close(self) -> None:
        os.close(self._descriptor)
        self._free_reserve()

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        if self._fsync:
            os.fsync(self._descriptor)

    def _write_into_reserve(self, data: bytes, error: OSError) -> None:
        """Raises `StageFailed` if there is no reserved space, or not enough."""
        self._truncate()
        try:
            if self._reserve is None:
                raise error
            self._free_reserve()
            self._write(data)
        except OSError as last:
            self._truncate()
            self.broken = True
            if self.position == 0:
                with suppress(OSError):
                    self.path.unlink()
            raise self._not_stored(last) from last

    def _free_reserve(self) -> None:
        if self._reserve is not None:
            os.close(self._reserve)
        self._reserve = None

    def _truncate(self) -> None:
        """Remove a partial write, so that the completions of one HTTP response are kept together or not at all."""
        with suppress(OSError):  # the error of the write is the one to raise; readers skip half a line
            os.ftruncate(self._descriptor, self.position)

    def _not_stored(self, error: OSError) -> StageFailed:
        folder = self.path.parent
        steps = {
            errno.EROFS: f"{folder} can't be written to: mount it writable, or give another store=...",
            errno.EACCES: f"get write permission for {folder}, or give another store=...",
            errno.ENOENT: f"{folder} was removed while it was in use: start again",
        }
        default = f"free space for {folder} and start again; all earlier replies are kept"
        return StageFailed("a reply could not be stored", got=error, next_step=steps.get(error.errno or 0, default))


def _reserve_space(folder: Path) -> int | None:
    """An unlinked file that occupies disk space until it is closed; None if there is little space anyway."""
    path = folder / f".reserve-{secrets.token_hex(8)}"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        path.unlink()
    except OSError:
        return None
    try:
        if free(folder) < MIN_FREE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
    except (OSError, AttributeError):  # little space, or a system without posix_fallocate
        os.close(descriptor)
        return None
    return descriptor
