"""What `dsrl gc` does to a calls store: merges finished segments, and leaves out duplicates and damaged lines.

It may run beside readers and writers and be killed at any point. The merged file is whole and has its name before the
old ones go; until they do, every record in it is there twice, which a reader doesn't see. A file whose writer may be
alive is never touched: one that is locked, or, where another machine wrote it, younger than a day.
"""

import fcntl
import itertools
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from dsrl.core.errors import UserError
from dsrl.llm.reply_cache.index import INDEXED_LINES, Table, collect, index_path, save_index
from dsrl.llm.reply_cache.locks import open_lock
from dsrl.llm.reply_cache.segments import Segment, check_version, record_id
from dsrl.llm.reply_cache.writer import host_name

DRAFT = ".merging-"
MERGED = "0000-merged-"
"""Begins the name of a merged file, which so comes before all others: its replies are the ones that are served."""
BIG = 256 << 20
"""Bytes at which a merged file is full."""
SMALL = BIG // 4
"""Bytes below which a whole file is merged with others."""
QUIET_SECONDS = 86400.0
"""Age at which the file of another machine's writer counts as finished."""


@dataclass
class Found:
    """One segment as it was found."""

    path: Path
    descriptor: int
    sealed: bool = False
    """Nobody will write to it any more."""
    size: int = 0
    num_duplicates: int = 0
    num_damaged: int = 0
    waste: int = 0
    """Bytes of duplicates and damaged lines."""
    left_out: set[int] = field(default_factory=set)
    """Where those lines begin."""

    @property
    def worth_merging(self) -> bool:
        return self.sealed and (self.waste > 0 or self.size < SMALL)


@dataclass(frozen=True)
class Compaction:
    """What a compaction did, or would do."""

    num_files: int
    num_files_after: int
    size: int
    """Bytes of all segments before."""
    size_after: int
    num_duplicates: int
    num_damaged: int
    num_busy: int
    """Files that were left alone because somebody may be writing to them."""

    def __str__(self) -> str:
        busy = f"; {self.num_busy} in use left as they are" if self.num_busy else ""
        return (
            f"calls     {self.num_files} files, {self.size / 1e6:.1f} MB -> {self.num_files_after} files, "
            f"{self.size_after / 1e6:.1f} MB without {self.num_duplicates} duplicates and {self.num_damaged} damaged "
            f"lines{busy}"
        )


def compact(folder: Path, sure: bool) -> Compaction:
    """Shrinks the store, or only says by how much. No reply is lost. Raises `UserError` if the disk refuses."""
    if not folder.is_dir():
        return Compaction(0, 0, 0, 0, 0, 0, 0)
    with _alone(folder), ExitStack() as locks:
        found = [_find(path, folder, locks) for path in sorted(folder.glob("*.jsonl"))]
        _read(found)
        chosen = [segment for segment in found if segment.worth_merging]
        if len(chosen) == 1 and not chosen[0].waste:
            chosen = []
        merged = _replace(folder, chosen) if sure else _planned(chosen)
    return _account(found, chosen, merged)


def _account(found: list[Found], chosen: list[Found], merged: list[int]) -> Compaction:
    size = sum(segment.size for segment in found)
    return Compaction(
        num_files=len(found),
        num_files_after=len(found) - len(chosen) + len(merged),
        size=size,
        size_after=size - sum(segment.size for segment in chosen) + sum(merged),
        num_duplicates=sum(segment.num_duplicates for segment in chosen),
        num_damaged=sum(segment.num_damaged for segment in chosen),
        num_busy=sum(not segment.sealed for segment in found),
    )


def _planned(chosen: list[Found]) -> list[int]:
    total = sum(segment.size - segment.waste for segment in chosen)
    return [BIG] * (total // BIG) + [total % BIG] * (total % BIG > 0)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps other processes from compacting the folder, and removes what a killed one has left."""
    try:
        descriptor = open_lock(folder / ".gc")
    except OSError as error:
        raise UserError(f"gc: can't write to {folder}", got=error, next_step="give a store=... of your own") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for draft in folder.glob(f"{DRAFT}*"):
            draft.unlink()
        yield
    except BlockingIOError as error:
        raise UserError(f"gc: another one is at work in {folder}", next_step="let it finish") from error
    finally:
        os.close(descriptor)


def _find(path: Path, folder: Path, locks: ExitStack) -> Found:
    """The segment, locked until the end if nobody writes to it."""
    descriptor = os.open(path, os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY)
    locks.callback(os.close, descriptor)
    found = Found(path, descriptor)
    written_here = path.name.startswith(MERGED) or f"-{host_name()}-" in path.name
    if (written_here and os.fstat(descriptor).st_size > 0) or _age(path, folder) > QUIET_SECONDS:
        with suppress(OSError):  # held, or a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found.sealed = True
    return found


def _age(path: Path, folder: Path) -> float:
    """Seconds since the last write, by the clock of the file system."""
    probe = folder / f".now-{secrets.token_hex(4)}"
    probe.touch()
    try:
        return probe.stat().st_mtime - path.stat().st_mtime
    finally:
        probe.unlink()


def _read(found: list[Found]) -> None:
    """Fills in what each holds. Of records with one id the first stays, in the order in which the store reads."""
    seen: set[bytes] = set()
    for segment in found:
        for number, (offset, line) in enumerate(_lines(segment.path), 1):
            segment.size += len(line)
            name = record_id(line)
            if name is None:
                check_version(segment.path, number, line)
                segment.num_damaged += 1
            elif name in seen:
                segment.num_duplicates += 1
            else:
                seen.add(name)
                continue
            segment.waste += len(line)
            segment.left_out.add(offset)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    offset = 0
    with path.open("rb") as file:
        for line in file:
            yield offset, line
            offset += len(line)


def _replace(folder: Path, chosen: list[Found]) -> list[int]:
    """Puts merged files into the place of the chosen ones; gives their sizes."""
    drafts: list[Path] = []
    lines = _kept(chosen)
    try:
        while first := next(lines, None):
            drafts.append(folder / f"{DRAFT}{secrets.token_hex(8)}")
            _write(drafts[-1], itertools.chain([first], lines))
        merged = [_publish(draft) for draft in drafts]
        _sync(folder)
    except OSError as error:
        for draft in drafts:
            draft.unlink(missing_ok=True)
        raise UserError("gc: the calls store could not be merged", got=error, next_step="make room") from error
    for segment in chosen:
        if os.fstat(segment.descriptor).st_size == segment.size:  # or else somebody writes to it in spite of the lock
            index_path(segment.path).unlink(missing_ok=True)
            segment.path.unlink()
    return merged


def _kept(chosen: list[Found]) -> Iterator[bytes]:
    for segment in chosen:
        for offset, line in _lines(segment.path):
            if offset not in segment.left_out and offset < segment.size:
                yield line


def _write(path: Path, lines: Iterator[bytes]) -> None:
    """One file, up to `BIG`, on the disk when this returns."""
    with path.open("wb") as file:
        while file.tell() < BIG and (line := next(lines, None)):
            file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _publish(draft: Path) -> int:
    """Gives the file its name and index."""
    path = draft.with_name(f"{MERGED}{draft.name.removeprefix(DRAFT)}.jsonl")
    draft.rename(path)
    segment = Segment(path)
    table = collect(segment.scan())
    if len(table.keys) >= INDEXED_LINES:
        save_index(segment, Table.of(table.keys, table.offsets, table.lengths))
    return segment.position


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
