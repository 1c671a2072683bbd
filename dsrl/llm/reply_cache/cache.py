"""The reply cache: every completion ever paid for, by the digest of its request and its index.

A folder of append-only segment files, one writer each, merged when opened. A reply is written before it is used, so a
killed process loses nothing; only a power cut can lose the last seconds, and with `fsync` not even those. Memory holds
only the ids and locations of the lines. `dsrl gc` merges the files, also while others read and write.
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
from dsrl.llm.reply_cache.index import CacheIndex, RecordLocation, index_path, record_key
from dsrl.llm.reply_cache.request_locks import RequestLocks
from dsrl.llm.reply_cache.segments import Segment, SegmentRemoved, SegmentWriter, encode, is_sealed, record_id

MAX_OPEN_FILES = 64
READ_ATTEMPTS = 3
"""Attempts to read a record while its file is removed or turns out to be damaged."""
RESCAN_SECONDS = 1.0
"""Longest time between two listings of the folder, for file systems on which its mtime shows nothing."""
MTIME_TICK = 100_000_000
"""Nanoseconds within which two changes of the folder may have the same mtime."""


class ReplyCache:
    """Safe in threads, in processes that share the folder, and across forks. Read at the first use."""

    def __init__(self, folder: Path, fsync: bool = False) -> None:
        self.folder = folder
        self.unstored: list[Usage] = []
        """Usage of replies that arrived but could not be written."""
        self._fsync = fsync
        self._segments: list[Segment] = []
        self._index = CacheIndex()
        self._writer: SegmentWriter | None = None
        self._own = -1
        """Number of the segment that this process writes."""
        self._readers: dict[int, int] = {}
        self._locks = RequestLocks(folder / ".claims")
        self._listed: tuple[float, int | None] | None = None
        self._mutex = RLock()

    def get(self, digest: str, index: int) -> Reply | None:
        """The cached completion, or None."""
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
        """The request body (model, messages, sampling, schema), or None."""
        record = self._read(digest)
        return record and record["request"]

    def put(self, digest: str, request: Mapping[str, Any], replies: Mapping[int, Reply], model: str) -> None:
        """Store the completions of one HTTP response in one write, so that a crash keeps all of them or none.

        `model` is the model that answered, by the endpoint's account. Raises `StageFailed` if they can't be written.
        """
        created = round(time.time(), 3)
        records: dict[str, dict[str, Any]] = {f"{digest}:{i}": _record(r, model, created) for i, r in replies.items()}
        with self._mutex:
            self._open()
            if self._index.find(record_key(digest.encode())) is None:
                records = {digest: {"request": request, "created": created}, **records}
            lines = [encode(name, record) for name, record in records.items()]
            try:
                offsets = self._append(lines)
            except StageFailed:
                if self._writer is None or self._writer.broken:  # else they went into the reserved space
                    self.unstored += [reply.usage for reply in replies.values()]
                raise
            for name, offset, line in zip(records, offsets, lines, strict=True):
                self._index.add(record_key(name.encode()), RecordLocation(self._own, offset, len(line)))

    def try_lock(self, digest: str) -> bool:
        """Lock a request before completions of it are fetched. Release it with `unlock`.

        False: another process is fetching some of them. After True, `get` also finds what others have stored so far.
        """
        if not self._locks.is_open:
            self.refresh()
        if not self._locks.acquire(digest):
            return False
        with self._mutex:
            self._read_new_records()
        return True

    def unlock(self, digest: str) -> None:
        """Call it after the completions were stored."""
        self._locks.release(digest)

    def refresh(self) -> None:
        """Find what other processes have added. Raises `UserError` if the folder is not writable."""
        with self._mutex:
            _make_writable(self.folder)
            self._scan()

    def close(self) -> None:
        """Close the files and release all locks; a later use opens them again."""
        with self._mutex:
            if self._writer is not None:
                self._writer.close()
            self._close_readers()
            self._locks.close()
            self._writer = None

    def __len__(self) -> int:
        """Number of cached completions."""
        with self._mutex:
            self._open()
            return self._index.num_completions()

    def _open(self) -> None:
        if self._listed is None:
            self._scan()

    def _scan(self) -> None:
        """Read what is new; everything if files were removed, as `dsrl gc` does after merging them."""
        for _ in range(READ_ATTEMPTS):
            self._listed = time.monotonic(), _mtime(self.folder)
            if self.folder.exists() and not self.folder.is_dir():
                raise _not_writable(self.folder, "a file")
            paths = sorted(self.folder.glob("*.jsonl"))
            if not {segment.path for segment in self._segments} <= set(paths):
                self._forget()
            known = {segment.path for segment in self._segments}
            for path in paths:
                if path not in known:
                    self._add_segment(Segment(path))
            with suppress(FileNotFoundError):  # removed after it was listed
                for number, segment in enumerate(self._segments):
                    if not segment.sealed:
                        sealed = is_sealed(segment.path)
                        self._read_more(number, segment)
                        segment.sealed = sealed
                return

    def _read_more(self, number: int, segment: Segment) -> None:
        if segment.path.stat().st_size > segment.position:
            self._index.add_segment(segment, number)

    def _read_new_records(self) -> None:
        """Like `refresh`, but takes only microseconds if nothing is new."""
        listed, changed = self._listed, _mtime(self.folder)
        if listed is None or changed is None or changed != listed[1] or time.monotonic() > listed[0] + RESCAN_SECONDS:
            return self._scan()
        try:
            for number, segment in enumerate(self._segments):
                if not segment.sealed and number != self._own:
                    self._read_more(number, segment)
        except FileNotFoundError:
            self._scan()

    def _forget(self) -> None:
        self._segments, self._index, self._own = [], CacheIndex(), -1
        self._close_readers()

    def _add_segment(self, segment: Segment) -> None:
        if self._writer is not None and self._writer.path == segment.path:
            self._own = len(self._segments)
        self._segments.append(segment)

    def _append(self, lines: list[bytes]) -> list[int]:
        """Offsets of the lines. A new file is started after a failed write and after a fork."""
        writer = self._writer
        if writer is None or writer.broken or writer.pid != os.getpid():
            _make_writable(self.folder)
            if writer is not None:
                writer.close()
            writer = self._writer = SegmentWriter(self.folder, self._fsync)
            self._add_segment(Segment(writer.path))
        try:
            offsets = writer.append(lines)
        except SegmentRemoved:
            return self._append(lines)
        own = self._segments[self._own]
        own.position, own.num_lines = writer.position, writer.num_lines
        return offsets

    def _read(self, name: str) -> dict[str, Any] | None:
        encoded = name.encode()
        with self._mutex:
            self._open()
            for _ in range(READ_ATTEMPTS):
                location = self._index.find(record_key(encoded))
                if location is None:
                    return None
                line = self._read_line(location)
                if record_id(line) == encoded:
                    record: dict[str, Any] = json.loads(line)
                    return record
                self._rebuild(self._segments[location.segment])
        return None

    def _read_line(self, location: RecordLocation) -> bytes:
        """Empty if the file was removed."""
        try:
            return os.pread(self._reader(location.segment), location.length, location.offset)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESTALE):
                return b""
            raise

    def _rebuild(self, segment: Segment) -> None:
        """Read everything again after the index pointed to a wrong line: the file was merged or is damaged."""
        if segment.path.exists():
            with suppress(OSError):  # without permission to delete the index, the line stays missing
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
    assert reply.error is None, "a failed call is missing data and is requested again"
    return {
        "text": reply.text,
        "finish_reason": reply.finish_reason,
        "usage": asdict(reply.usage),
        "model": model,
        "created": created,
    }


def _mtime(folder: Path) -> int | None:
    """When a file was last added to or removed from the folder, by the file system's clock; 0 without a folder.

    None: just now, so that a further change may get the same mtime, because such clocks tick every few milliseconds.
    """
    try:
        changed = folder.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
    return changed if abs(time.time_ns() - changed) > MTIME_TICK else None


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise _not_writable(folder, error) from error
    if not writable:
        raise _not_writable(folder, "no write permission, or mounted read-only")


def _not_writable(folder: Path, got: object) -> UserError:
    return UserError(
        f"the reply cache {folder} is not a writable folder",
        got=got,
        next_step="give a folder of your own with store=...",
    )
