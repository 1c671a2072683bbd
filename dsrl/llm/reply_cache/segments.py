"""The files under the calls store: JSON lines that check themselves, each file appended to by one writer only."""

import fcntl
import json
import logging
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsrl.core.errors import UserError

VERSION = 1
START = b'{"v":%d,"id":"' % VERSION
SUM = b'","sum":"'
SUM_LENGTH = 8
ANY_VERSION = re.compile(rb'\{"v":(\d+),')

log = logging.getLogger(__name__)


def encode(name: str, record: Mapping[str, Any]) -> bytes:
    """One line: version, id and checksum in fixed places, so that an index is built without parsing the rest."""
    rest = b'",' + json.dumps(record, separators=(",", ":")).encode()[1:]
    return START + name.encode() + SUM + _checksum(name.encode(), rest) + rest + b"\n"


def record_id(line: bytes) -> bytes | None:
    """The id of a whole line; None if it is damaged."""
    end = line.find(b'"', len(START))
    name, rest = line[len(START) : end], line[end + len(SUM) + SUM_LENGTH : -1]
    expected = START + name + SUM + _checksum(name, rest)
    return name if line.startswith(expected) and line.endswith(b"}\n") else None


def _checksum(name: bytes, rest: bytes) -> bytes:
    return b"%08x" % zlib.crc32(rest, zlib.crc32(name))


def check_version(path: Path, number: int, line: bytes) -> None:
    """Raises `UserError` for a line that a newer dsrl has written."""
    version = ANY_VERSION.match(line)
    if version and int(version[1]) > VERSION:
        raise UserError(
            f"{path}, line {number}: written by a newer dsrl",
            got=f"version {int(version[1])}",
            allowed=f"up to version {VERSION}",
            next_step="update dsrl, or give another store",
        )


def is_sealed(path: Path) -> bool:
    """Whether nobody will append to the file any more, as far as the file system's locks tell.

    Raises FileNotFoundError. An empty file is not looked at: its writer takes the lock before the first line.
    """
    if path.stat().st_size == 0:
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # held, or a file system without locks, where a writer can't be ruled out
        return False
    finally:
        os.close(descriptor)
    return True


@dataclass
class Segment:
    """One file and how far it has been read."""

    path: Path
    position: int = 0
    """Bytes read; what a writer adds later is found behind it."""
    num_lines: int = 0
    reported: int = -1
    """Where an unfinished line was last reported, so that a reader that looks often says it once."""
    sealed: bool = False
    """Nobody will append to it any more."""

    def scan(self) -> Iterator[tuple[bytes, int, int]]:
        """(id, offset, length) of the lines since the last scan.

        A last line without its end is either still being written or what a killed process left: it is cut off and
        looked at again next time. A damaged line in the middle is passed over. Both are reported.
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
                if name is None:
                    self._report(line)
                else:
                    yield name, offset, len(line)

    def _report_tail(self, length: int) -> None:
        if self.reported != self.position and is_sealed(self.path):
            log.warning(
                "%s: the last %d bytes are an unfinished line, left out: its writer was killed; "
                "`dsrl gc yes=true` removes it",
                self.path,
                length,
            )
            self.reported = self.position

    def _report(self, line: bytes) -> None:
        check_version(self.path, self.num_lines, line)
        log.warning(
            "%s, line %d: damaged; its completion counts as missing and is asked for again where it is needed; "
            "`dsrl gc yes=true` rewrites the file without it",
            self.path,
            self.num_lines,
        )
