"""The files under the calls store: JSON lines that check themselves, each file appended to by one writer only."""

import json
import logging
import os
import re
import secrets
import socket
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsrl.errors import StageFailed, UserError

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


@dataclass
class Segment:
    """One file and how far it has been read."""

    path: Path
    position: int = 0
    """Bytes read; what a writer adds later is found behind it."""
    num_lines: int = 0
    reported: int = -1
    """Where an unfinished line was last reported, so that a reader that looks often says it once."""

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
        if self.reported != self.position:
            log.warning(
                "%s: the last %d bytes are an unfinished line, left out: its writer was killed, or is still at it",
                self.path,
                length,
            )
        self.reported = self.position

    def _report(self, line: bytes) -> None:
        version = ANY_VERSION.match(line)
        if version and int(version[1]) > VERSION:
            raise UserError(
                f"{self.path}, line {self.num_lines}: written by a newer dsrl",
                got=f"version {int(version[1])}",
                allowed=f"up to version {VERSION}",
                next_step="update dsrl, or give another store",
            )
        log.warning("%s, line %d: damaged; its completion counts as missing", self.path, self.num_lines)


class Writer:
    """Appends to a segment of its own, made at the first append."""

    def __init__(self, folder: Path, fsync: bool) -> None:
        host = re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname())
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        self.segment = Segment(folder / f"{stamp}-{host}-{os.getpid()}-{secrets.token_hex(4)}.jsonl")
        self.pid = os.getpid()
        self.broken = False
        self._fsync = fsync
        self._descriptor = os.open(self.segment.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)

    def append(self, lines: list[bytes]) -> list[int]:
        """Writes whole lines at once and gives their offsets; raises `StageFailed` where the disk refuses.

        After that the file may end in half a line, and this writer must not be used again.
        """
        data = memoryview(b"".join(lines))
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
            if self._fsync:
                os.fsync(self._descriptor)
        except OSError as error:
            self.broken = True
            raise StageFailed(
                "a reply could not be stored",
                got=error,
                next_step=f"make room for {self.segment.path.parent} and start again; all earlier replies are kept",
            ) from error
        offsets = []
        for line in lines:
            offsets.append(self.segment.position)
            self.segment.position += len(line)
            self.segment.num_lines += 1
        return offsets

    def close(self) -> None:
        os.close(self._descriptor)
