"""The calls store: every completion ever paid for, under the digest of its request and its index.

A folder of append-only segment files, one writer each, merged when opened. A line is with the operating system before
its reply is used, so that a killed process loses nothing; only a power cut can take the last seconds, and not even that
with `fsync`. Nothing but the ids and places of the lines is kept in memory.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from threading import RLock
from typing import Any

from dsrl.errors import UserError
from dsrl.llm.segments import Segment, Writer, encode
from dsrl.model import Reply, Usage

MAX_OPEN_FILES = 64
OFFSET_BITS = 44
LENGTH_BITS = 32


class CallsStore:
    """Safe in threads, in processes that share the folder, and across forks. Cheap to make; read at the first use."""

    def __init__(self, folder: Path, fsync: bool = False) -> None:
        self.folder = folder
        self._fsync = fsync
        self._segments: list[Segment] = []
        self._known: set[str] = set()
        self._places: dict[bytes, int] = {}
        self._writer: Writer | None = None
        self._own = -1
        self._readers: dict[int, int] = {}
        self._opened = False
        self._lock = RLock()

    def get(self, digest: str, index: int) -> Reply | None:
        """The stored completion, or None."""
        record = self._read(f"{digest}:{index}")
        if record is None:
            return None
        return Reply(
            text=record["text"],
            finish_reason=record["finish_reason"],
            usage=Usage(**record["usage"]),
            call=f"{digest}:{index}",
        )

    def request(self, digest: str) -> dict[str, Any] | None:
        """What was asked: the body of the request (model, messages, sampling, schema), or None."""
        record = self._read(digest)
        return record and record["request"]

    def put(self, digest: str, request: Mapping[str, Any], replies: Mapping[int, Reply], model: str) -> None:
        """Stores the completions of one HTTP reply in one write, so that a crash keeps all of them or none.

        `model` is the one that the endpoint says has answered. Raises `StageFailed` if they can't be written.
        """
        created = round(time.time(), 3)
        records: dict[str, dict[str, Any]] = {f"{digest}:{i}": _record(r, model, created) for i, r in replies.items()}
        with self._lock:
            self._open()
            if digest.encode() not in self._places:
                records = {digest: {"request": request, "created": created}, **records}
            lines = [encode(name, record) for name, record in records.items()]
            number, offsets = self._append(lines)
            for name, offset, line in zip(records, offsets, lines, strict=True):
                self._places.setdefault(name.encode(), _place(number, offset, len(line)))

    def refresh(self) -> None:
        """Finds what other processes have added since the store was last read."""
        with self._lock:
            self._opened = True
            _make_writable(self.folder)
            for path in sorted(self.folder.glob("*.jsonl")):
                if path.name not in self._known:
                    self._add(Segment(path))
            for number, segment in enumerate(self._segments):
                if segment.path.stat().st_size > segment.position:
                    for name, offset, length in segment.scan():
                        self._places.setdefault(name, _place(number, offset, length))

    def close(self) -> None:
        """Closes the files; a later use opens them again."""
        with self._lock:
            if self._writer is not None:
                self._writer.close()
            while self._readers:
                os.close(self._readers.popitem()[1])
            self._writer = None

    def __len__(self) -> int:
        """Completions in the store."""
        with self._lock:
            self._open()
            return sum(b":" in name for name in self._places)

    def _open(self) -> None:
        if not self._opened:
            self.refresh()

    def _add(self, segment: Segment) -> int:
        self._segments.append(segment)
        self._known.add(segment.path.name)
        return len(self._segments) - 1

    def _append(self, lines: list[bytes]) -> tuple[int, list[int]]:
        """Segment number and offsets of the lines. After a failed write, or a fork, the next one takes a new file."""
        writer = self._writer
        if writer is None or writer.broken or writer.pid != os.getpid():
            writer = self._writer = Writer(self.folder, self._fsync)
            self._own = self._add(writer.segment)
        return self._own, writer.append(lines)

    def _read(self, name: str) -> dict[str, Any] | None:
        with self._lock:
            self._open()
            place = self._places.get(name.encode())
            if place is None:
                return None
            number, offset, length = _parts(place)
            line = os.pread(self._reader(number), length, offset)
        record: dict[str, Any] = json.loads(line)
        return record

    def _reader(self, number: int) -> int:
        if number not in self._readers:
            if len(self._readers) >= MAX_OPEN_FILES:
                os.close(self._readers.pop(next(iter(self._readers))))
            self._readers[number] = os.open(self._segments[number].path, os.O_RDONLY)
        return self._readers[number]


def _record(reply: Reply, model: str, created: float) -> dict[str, Any]:
    assert reply.error is None, "a failed call is missing data and is asked again"
    return {
        "text": reply.text,
        "finish_reason": reply.finish_reason,
        "usage": asdict(reply.usage),
        "model": model,
        "created": created,
    }


def _place(number: int, offset: int, length: int) -> int:
    """Segment, offset and length in one integer: a million of them have to fit into memory."""
    return (number << OFFSET_BITS | offset) << LENGTH_BITS | length


def _parts(place: int) -> tuple[int, int, int]:
    start = place >> LENGTH_BITS
    return start >> OFFSET_BITS, start & ((1 << OFFSET_BITS) - 1), place & ((1 << LENGTH_BITS) - 1)


def _make_writable(folder: Path) -> None:
    problem: object = "no right to write there"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError as error:
        writable, problem = False, error
    if not writable:
        raise UserError(
            f"the calls store {folder} is not a writable folder",
            got=problem,
            next_step="give a folder of your own with store=...",
        )
