"""Where each record of the reply cache is: a dictionary for recent records, sorted arrays for large segments.

An array takes 20 bytes a record instead of about 150. It is saved beside its segment as `*.index`, so that a million
records are available in a fraction of a second. An index file is itself a cache: one that does not match its segment
is ignored and rebuilt.
"""

import logging
import os
import secrets
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Literal, NamedTuple

from dsrl.llm.reply_cache.segments import Segment, record_id

MIN_TABLE_LINES = 20_000
"""Lines read at once from which they get an array, and an index file, of their own."""
MAGIC = int.from_bytes(b"dsrlidx1", "little")
HEADER_LENGTH = 8
OFFSET_BITS = 44
LENGTH_BITS = 32

log = logging.getLogger(__name__)


class RecordLocation(NamedTuple):
    """A line: number of its segment, offset and length in bytes."""

    segment: int
    offset: int
    length: int


def pack(location: RecordLocation) -> int:
    """One integer, because a hundred thousand locations must fit into memory."""
    return (location.segment << OFFSET_BITS | location.offset) << LENGTH_BITS | location.length


def unpack(packed: int) -> RecordLocation:
    start = packed >> LENGTH_BITS
    return RecordLocation(start >> OFFSET_BITS, start & ((1 << OFFSET_BITS) - 1), packed & ((1 << LENGTH_BITS) - 1))


def record_key(name: bytes) -> int:
    """A 64-bit hash of a record's id, odd for a completion and even for a request.

    A collision at worst hides a record: the id in the line is compared with the requested one.
    """
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "little") & ~1 | (b":" in name)


class IndexTable:
    """Records of one segment: columns of keys, offsets and lengths."""

    def __init__(self, keys: "array[int]", offsets: "array[int]", lengths: "array[int]") -> None:
        self.keys, self.offsets, self.lengths = keys, offsets, lengths

    def sorted(self) -> "IndexTable":
        """Sorted by key; of two records with one key, the earlier stays in front."""
        order = sorted(range(len(self.keys)), key=self.keys.__getitem__)
        return IndexTable(
            array("Q", map(self.keys.__getitem__, order)),
            array("Q", map(self.offsets.__getitem__, order)),
            array("I", map(self.lengths.__getitem__, order)),
        )

    def row(self, key: int) -> int | None:
        """Needs a sorted table."""
        row = bisect_left(self.keys, key)
        return row if row < len(self.keys) and self.keys[row] == key else None

    def merge(self, later: "IndexTable") -> "IndexTable":
        """Sorted union with the records of later lines of the same segment."""
        return IndexTable(self.keys + later.keys, self.offsets + later.offsets, self.lengths + later.lengths).sorted()


class CacheIndex:
    """All records of a cache. Of several records with one id, the one added first is found."""

    def __init__(self) -> None:
        self._recent: dict[int, int] = {}
        self._tables: list[tuple[int, IndexTable]] = []

    def find(self, key: int) -> RecordLocation | None:
        if (packed := self._recent.get(key)) is not None:
            return unpack(packed)
        return self._find_in_tables(key)

    def add(self, key: int, location: RecordLocation) -> None:
        if self._find_in_tables(key) is None:
            self._recent.setdefault(key, pack(location))

    def add_segment(self, segment: Segment, number: int) -> None:
        """Add the records behind the segment's position: from its index file if there is one, then from the file."""
        saved = load_index(segment) if segment.position == 0 else None
        if saved is not None:
            self._tables.append((number, saved))
        is_complete = segment.position == 0 or saved is not None
        table = read_table(segment.scan())
        if len(table.keys) < MIN_TABLE_LINES:
            for key, offset, length in zip(table.keys, table.offsets, table.lengths, strict=True):
                self.add(key, RecordLocation(number, offset, length))
            return
        table = table.sorted()
        self._tables.append((number, table))
        if is_complete:
            save_index(segment, table if saved is None else saved.merge(table))

    def num_completions(self) -> int:
        keys = set(self._recent).union(*(table.keys for _, table in self._tables))
        return sum(key & 1 for key in keys)

    def _find_in_tables(self, key: int) -> RecordLocation | None:
        for segment, table in self._tables:
            if (row := table.row(key)) is not None:
                return RecordLocation(segment, table.offsets[row], table.lengths[row])
        return None


def read_table(lines: Iterable[tuple[bytes, int, int]]) -> IndexTable:
    """An unsorted table of (id, offset, length) tuples, in their order."""
    table = IndexTable(array("Q"), array("Q"), array("I"))
    for name, offset, length in lines:
        table.keys.append(record_key(name))
        table.offsets.append(offset)
        table.lengths.append(length)
    return table


def index_path(segment: Path) -> Path:
    return segment.with_suffix(".index")


def save_index(segment: Segment, table: IndexTable) -> None:
    """Save the records up to the segment's position; a failure is only logged."""
    body = b"".join(column.tobytes() for column in (table.keys, table.offsets, table.lengths))
    last = max(range(len(table.keys)), key=table.offsets.__getitem__)
    last_record = (table.keys[last], table.offsets[last], table.lengths[last])
    checksum = zlib.crc32(body, segment.position)
    header = array("Q", [MAGIC, segment.position, segment.num_lines, len(table.keys), *last_record, checksum])
    path = index_path(segment.path)
    draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        draft.write_bytes(header.tobytes() + body)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        log.info("%s: the index could not be saved (%s); the segment is read again next time", segment.path, error)


def load_index(segment: Segment) -> IndexTable | None:
    """The saved index, with the segment's position set to what it covers; None if there is no matching one."""
    try:
        data = index_path(segment.path).read_bytes()
    except OSError:
        return None
    start = HEADER_LENGTH * 8
    header, body = _column("Q", data[:start].ljust(start, b"\0")), memoryview(data)[start:]
    magic, covered, num_lines, count, key, offset, length, checksum = header
    if magic != MAGIC or len(body) != 20 * count or zlib.crc32(body, covered & 0xFFFFFFFF) != checksum:
        return None
    if not _last_record_matches(segment.path, covered, key, offset, length):
        return None
    segment.position, segment.num_lines = covered, num_lines
    keys, offsets, lengths = body[: 8 * count], body[8 * count : 16 * count], body[16 * count :]
    return IndexTable(_column("Q", keys), _column("Q", offsets), _column("I", lengths))


def _last_record_matches(path: Path, covered: int, key: int, offset: int, length: int) -> bool:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        name = record_id(os.pread(descriptor, length, offset))
        return os.fstat(descriptor).st_size >= covered and name is not None and record_key(name) == key
    finally:
        os.close(descriptor)


def _column(typecode: Literal["Q", "I"], data: bytes | memoryview) -> "array[int]":
    column: array[int] = array(typecode)
    column.frombytes(data)
    return column
