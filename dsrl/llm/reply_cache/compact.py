"""Compaction of the reply cache (`dsrl gc`): merge finished segments, drop duplicates and damaged lines.

Safe beside readers and writers, and to kill at any point. The merged file is complete and has its final name before
the old files are removed; until then each record exists twice, which readers do not notice. A file whose writer may be
alive is never touched: one that is locked or, if another machine wrote it, younger than a day.
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
from dsrl.llm.reply_cache.index import MIN_TABLE_LINES, index_path, read_table, save_index
from dsrl.llm.reply_cache.request_locks import open_lock
from dsrl.llm.reply_cache.segments import Segment, check_version, host_name, record_id

DRAFT = ".merging-"
MERGED = "0000-merged-"
"""Prefix of merged files. They sort before all others, so their records are the ones that are found."""
MAX_MERGED_BYTES = 256 << 20
SMALL_BYTES = MAX_MERGED_BYTES // 4
"""A file without waste is merged with others if it is smaller."""
SEALED_AFTER = 86400.0
"""Seconds after which the file of another machine's writer counts as finished."""


@dataclass
class SegmentScan:
    """What one segment contains."""

    path: Path
    descriptor: int
    sealed: bool = False
    """No process will write to it any more."""
    size: int = 0
    num_duplicates: int = 0
    num_damaged: int = 0
    waste: int = 0
    """Bytes of duplicates and damaged lines."""
    dropped: set[int] = field(default_factory=set)
    """Offsets of those lines."""

    @property
    def worth_merging(self) -> bool:
        return self.sealed and (self.waste > 0 or self.size < SMALL_BYTES)


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
    """Files left unchanged because a process may be writing to them."""

    def __str__(self) -> str:
        busy = f"; {self.num_busy} in use, left unchanged" if self.num_busy else ""
        return (
            f"calls     {self.num_files} files, {self.size / 1e6:.1f} MB -> {self.num_files_after} files, "
            f"{self.size_after / 1e6:.1f} MB without {self.num_duplicates} duplicates and {self.num_damaged} damaged "
            f"lines{busy}"
        )


def compact(folder: Path, sure: bool) -> Compaction:
    """Merge the segments, or with `sure=False` only compute the result. No reply is lost.

    Raises `UserError` if the disk refuses or another compaction is running.
    """
    if not folder.is_dir():
        return Compaction(0, 0, 0, 0, 0, 0, 0)
    with _exclusive(folder), ExitStack() as locks:
        scans = [_lock_segment(path, folder, locks) for path in sorted(folder.glob("*.jsonl"))]
        _scan_all(scans)
        chosen = [scan for scan in scans if scan.worth_merging]
        if len(chosen) == 1 and not chosen[0].waste:
            chosen = []
        if sure:
            merged = _replace(folder, chosen)
        else:
            total = sum(scan.size - scan.waste for scan in chosen)
            num_full, rest = divmod(total, MAX_MERGED_BYTES)
            merged = [MAX_MERGED_BYTES] * num_full + [rest] * (rest > 0)
    size = sum(scan.size for scan in scans)
    return Compaction(
        num_files=len(scans),
        num_files_after=len(scans) - len(chosen) + len(merged),
        size=size,
        size_after=size - sum(scan.size for scan in chosen) + sum(merged),
        num_duplicates=sum(scan.num_duplicates for scan in chosen),
        num_damaged=sum(scan.num_damaged for scan in chosen),
        num_busy=sum(not scan.sealed for scan in scans),
    )


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Only one process compacts a folder at a time; remove drafts left by a killed one."""
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
        raise UserError(f"gc: another gc is running in {folder}", next_step="wait until it has finished") from error
    finally:
        os.close(descriptor)


def _lock_segment(path: Path, folder: Path, locks: ExitStack) -> SegmentScan:
    """The segment, locked until the end unless a process may be writing to it."""
    descriptor = os.open(path, os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY)
    locks.callback(os.close, descriptor)
    scan = SegmentScan(path, descriptor)
    written_here = path.name.startswith(MERGED) or f"-{host_name()}-" in path.name
    if (written_here and os.fstat(descriptor).st_size > 0) or _age(path, folder) > SEALED_AFTER:
        with suppress(OSError):  # locked, or a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            scan.sealed = True
    return scan


def _age(path: Path, folder: Path) -> float:
    """Seconds since the last write, by the clock of the file system."""
    probe = folder / f".now-{secrets.token_hex(4)}"
    probe.touch()
    try:
        return probe.stat().st_mtime - path.stat().st_mtime
    finally:
        probe.unlink()


def _scan_all(scans: list[SegmentScan]) -> None:
    """Count duplicates and damaged lines. Of records with one id the first is kept, in the order in which the cache
    reads the files."""
    seen: set[bytes] = set()
    for scan in scans:
        for number, (offset, line) in enumerate(_lines(scan.path), 1):
            scan.size += len(line)
            name = record_id(line)
            if name is None:
                check_version(scan.path, number, line)
                scan.num_damaged += 1
            elif name in seen:
                scan.num_duplicates += 1
            else:
                seen.add(name)
                continue
            scan.waste += len(line)
            scan.dropped.add(offset)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    offset = 0
    with path.open("rb") as file:
        for line in file:
            yield offset, line
            offset += len(line)


def _replace(folder: Path, chosen: list[SegmentScan]) -> list[int]:
    """Replace the chosen files by merged ones; returns the sizes of the merged files."""
    drafts: list[Path] = []
    lines = (
        line
        for scan in chosen
        for offset, line in _lines(scan.path)
        if offset not in scan.dropped and offset < scan.size
    )
    try:
        while first := next(lines, None):
            drafts.append(folder / f"{DRAFT}{secrets.token_hex(8)}")
            with drafts[-1].open("wb") as file:
                rest = itertools.chain([first], lines)
                while file.tell() < MAX_MERGED_BYTES and (line := next(rest, None)):
                    file.write(line)
                file.flush()
                os.fsync(file.fileno())
        merged = [_publish(draft) for draft in drafts]
        _sync_folder(folder)
    except OSError as error:
        for draft in drafts:
            draft.unlink(missing_ok=True)
        raise UserError("gc: the reply cache could not be merged", got=error, next_step="free disk space") from error
    for scan in chosen:
        if os.fstat(scan.descriptor).st_size == scan.size:  # else a process writes to it in spite of the lock
            index_path(scan.path).unlink(missing_ok=True)
            scan.path.unlink()
    return merged


def _publish(draft: Path) -> int:
    """Give a draft its final name and an index; returns its size."""
    path = draft.with_name(f"{MERGED}{draft.name.removeprefix(DRAFT)}.jsonl")
    draft.rename(path)
    segment = Segment(path)
    table = read_table(segment.scan())
    if len(table.keys) >= MIN_TABLE_LINES:
        save_index(segment, table.sorted())
    return segment.position


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
