"""The calls store: every completion ever paid for, under the digest of its request and its index.

A folder of append-only segment files, one writer each, merged when opened. A line is with the operating system before
its reply is used, so that a killed process loses nothing; only a power cut can take the last seconds, and not even that
with `fsync`. Nothing but the ids and places of the lines is kept in memory. `dsrl gc` merges the files; it may do so
while others read and write.
"""

import errno
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from threading import RLock
from typing import Any

from dsrl.core.errors import StageFailed, UserError
from dsrl.data.model import Reply, Usage
from dsrl.llm.reply_cache.index import Place, Places, index_path, read_segment, record_key
from dsrl.llm.reply_cache.request_locks import Claims
from dsrl.llm.reply_cache.segments import Segment, encode, is_sealed, record_id
from dsrl.llm.reply_cache.writer import Removed, Writer

MAX_OPEN_FILES = 64
TRIES = 3
"""Times a record is looked for while its file is being taken away or turns out to be damaged."""
LOOK_SECONDS = 1.0
"""Longest time between two looks for segments that others have begun, where a folder's date says nothing."""
TICK = 100_000_000
"""Nanoseconds within which a folder's date may not tell two changes apart."""


class CallsStore:
    """Safe in threads, in processes that share the folder, and across forks. Cheap to make; read at the first use."""

    def __init__(self, folder: Path, fsync: bool = False) -> None:
        self.folder = folder
        self.unstored: list[Usage] = []
        """Of replies that came and that the disk did not take."""
        self._fsync = fsync
        self._segments: list[Segment] = []
        self._places = Places()
        self._writer: Writer | None = None
        self._own = -1
        self._readers: dict[int, int] = {}
        self._claims = Claims(folder / ".claims")
        self._listed: tuple[float, int | None] | None = None
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
            if self._places.find(record_key(digest.encode())) is None:
                records = {digest: {"request": request, "created": created}, **records}
            lines = [encode(name, record) for name, record in records.items()]
            try:
                offsets = self._append(lines)
            except StageFailed:
                if self._writer is None or self._writer.broken:  # else they went into the reserve
                    self.unstored += [reply.usage for reply in replies.values()]
                raise
            for name, offset, line in zip(records, offsets, lines, strict=True):
                self._places.add(record_key(name.encode()), Place(self._own, offset, len(line)))

    def claim(self, digest: str) -> bool:
        """Whether to ask an endpoint for completions of the request now, until `free`.

        False: another process is asking for some of them; they will be here soon. If true, `get` also knows what
        others have stored up to this moment.
        """
        if not self._claims.is_open:
            self.refresh()
        if not self._claims.take(digest):
            return False
        with self._lock:
            self._look()
        return True

    def free(self, digest: str) -> None:
        """Ends a claim, after what came has been put."""
        self._claims.free(digest)

    def refresh(self) -> None:
        """Finds what other processes have added. Raises `UserError` where no reply could be stored."""
        with self._lock:
            _make_writable(self.folder)
            self._scan()

    def close(self) -> None:
        """Closes the files and frees all claims; a later use opens them again."""
        with self._lock:
            if self._writer is not None:
                self._writer.close()
            self._close_readers()
            self._claims.close()
            self._writer = None

    def __len__(self) -> int:
        """Completions in the store."""
        with self._lock:
            self._open()
            return self._places.num_completions()

    def _open(self) -> None:
        if self._listed is None:
            self._scan()

    def _scan(self) -> None:
        """Reads what is new; from the start if files were taken away, as `dsrl gc` does after it has merged them."""
        for _ in range(TRIES):
            self._listed = time.monotonic(), _changed(self.folder)
            paths = _list(self.folder)
            if not {segment.path for segment in self._segments} <= set(paths):
                self._forget()
            known = {segment.path for segment in self._segments}
            for path in paths:
                if path not in known:
                    self._add(Segment(path))
            with suppress(FileNotFoundError):  # taken away after it was listed
                self._read_on()
                return

    def _read_on(self) -> None:
        for number, segment in enumerate(self._segments):
            if not segment.sealed:
                sealed = is_sealed(segment.path)
                self._read_more(number, segment)
                segment.sealed = sealed

    def _read_more(self, number: int, segment: Segment) -> None:
        if segment.path.stat().st_size > segment.position:
            read_segment(segment, number, self._places)

    def _look(self) -> None:
        """As `refresh`, in microseconds where nothing is new."""
        listed, changed = self._listed, _changed(self.folder)
        if listed is None or changed is None or changed != listed[1] or time.monotonic() > listed[0] + LOOK_SECONDS:
            return self._scan()
        try:
            for number, segment in enumerate(self._segments):
                if not segment.sealed and number != self._own:
                    self._read_more(number, segment)
        except FileNotFoundError:
            self._scan()

    def _forget(self) -> None:
        self._segments, self._places, self._own = [], Places(), -1
        self._close_readers()

    def _add(self, segment: Segment) -> None:
        if self._writer is not None and self._writer.path == segment.path:
            self._own = len(self._segments)
        self._segments.append(segment)

    def _append(self, lines: list[bytes]) -> list[int]:
        """Offsets of the lines. After a failed write, or a fork, the next one takes a new file."""
        writer = self._writer
        if writer is None or writer.broken or writer.pid != os.getpid():
            _make_writable(self.folder)
            if writer is not None:
                writer.close()
            writer = self._writer = Writer(self.folder, self._fsync)
            self._add(Segment(writer.path))
        try:
            offsets = writer.append(lines)
        except Removed:
            return self._append(lines)
        own = self._segments[self._own]
        own.position, own.num_lines = writer.position, writer.num_lines
        return offsets

    def _read(self, name: str) -> dict[str, Any] | None:
        wanted = name.encode()
        with self._lock:
            self._open()
            for _ in range(TRIES):
                place = self._places.find(record_key(wanted))
                if place is None:
                    return None
                line = self._line(place)
                if record_id(line) == wanted:
                    record: dict[str, Any] = json.loads(line)
                    return record
                self._read_again(self._segments[place.segment])
        return None

    def _line(self, place: Place) -> bytes:
        """Empty where the file is gone."""
        try:
            return os.pread(self._reader(place.segment), place.length, place.offset)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESTALE):
                return b""
            raise

    def _read_again(self, segment: Segment) -> None:
        """After a line was not what the index says: the file was merged into another, or is damaged."""
        if segment.path.exists():
            with suppress(OSError):  # where nothing may be removed, the line stays missing
                index_path(segment.path).unlink(missing_ok=True)
        self._forget()
        self._scan()

    def _reader(self, number: int) -> int:
        if number not in self._readers:
            if len(self._readers) >= MAX_OPEN_FILES:
                os.close(self._readers.pop(next(iter(self._readers))))
            self._readers[number] = os.open(self._segments[number].path, os.O_RDONLY)
        return self._readers[number]

    def _close_readers(self) -> None:
        while self._readers:
            os.close(self._readers.popitem()[1])


def _record(reply: Reply, model: str, created: float) -> dict[str, Any]:
    assert reply.error is None, "a failed call is missing data and is asked again"
    return {
        "text": reply.text,
        "finish_reason": reply.finish_reason,
        "usage": asdict(reply.usage),
        "model": model,
        "created": created,
    }


def _list(folder: Path) -> list[Path]:
    if folder.exists() and not folder.is_dir():
        raise _unusable(folder, "a file")
    return sorted(folder.glob("*.jsonl"))


def _changed(folder: Path) -> int | None:
    """When a file was last made or removed there, by the file system's clock; 0 where there is no folder.

    None: just now. Such clocks tick every few milliseconds, so another change may come to have the same date.
    """
    try:
        changed = folder.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
    return changed if abs(time.time_ns() - changed) > TICK else None


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise _unusable(folder, error) from error
    if not writable:
        raise _unusable(folder, "no right to write there, or mounted read-only")


def _unusable(folder: Path, got: object) -> UserError:
    return UserError(
        f"the calls store {folder} is not a writable folder",
        got=got,
        next_step="give a folder of your own with store=...",
    )
