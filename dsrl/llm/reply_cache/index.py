"""Where the records of the calls store are: a dictionary of the newest, sorted arrays for files of many lines.

An array takes 20 bytes a record instead of some 150, and rests beside its segment as `*.index`, so that a million of
them are there in a fraction of a second. An index is a cache: one that does not fit its segment is ignored and made
again.
"""

import logging
import os
import secrets
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Literal, NamedTuple

from dsrl.llm.reply_cache.segments import Segment, record_id

INDEXED_LINES = 20_000
"""Lines in a row that get an array, and on disk an index, of their own."""
MAGIC = int.from_bytes(b"dsrlidx1", "little")
HEADER_LENGTH = 8
OFFSET_BITS = 44
LENGTH_BITS = 32

log = logging.getLogger(__name__)


class Place(NamedTuple):
    """A line: number of its segment, offset and length in bytes."""

    segment: int
    offset: int
    length: int


def pack(place: Place) -> int:
    """One integer, because a hundred thousand of them have to fit into memory."""
    return (place.segment << OFFSET_BITS | place.offset) << LENGTH_BITS | place.length


def unpack(packed: int) -> Place:
    start = packed >> LENGTH_BITS
    return Place(start >> OFFSET_BITS, start & ((1 << OFFSET_BITS) - 1), packed & ((1 << LENGTH_BITS) - 1))


def record_key(name: bytes) -> int:
    """64 bits that stand for a record's id, odd for a completion and even for a request.

    Two ids of one key would at worst hide each other: a line that is read has to bear the id that was looked for.
    """
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "little") & ~1 | (b":" in name)


class Table:
    """Records of one segment, sorted by key."""

    def __init__(self, keys: "array[int]", offsets: "array[int]", lengths: "array[int]") -> None:
        self.keys, self.offsets, self.lengths = keys, offsets, lengths

    @classmethod
    def of(cls, keys: "array[int]", offsets: "array[int]", lengths: "array[int]") -> "Table":
        """Of two records with one key the first stays in front."""
        order = sorted(range(len(keys)), key=keys.__getitem__)
        return cls(
            array("Q", map(keys.__getitem__, order)),
            array("Q", map(offsets.__getitem__, order)),
            array("I", map(lengths.__getitem__, order)),
        )

    def row(self, key: int) -> int | None:
        row = bisect_left(self.keys, key)
        return row if row < len(self.keys) and self.keys[row] == key else None

    def joined(self, other: "Table") -> "Table":
        """Both, of one segment; `self` holds the earlier lines."""
        return Table.of(self.keys + other.keys, self.offsets + other.offsets, self.lengths + other.lengths)


class Places:
    """All records of a store. The first of several with one id stays, whatever is added later."""

    def __init__(self) -> None:
        self._recent: dict[int, int] = {}
        self._tables: list[tuple[int, Table]] = []

    def find(self, key: int) -> Place | None:
        if (packed := self._recent.get(key)) is not None:
            return unpack(packed)
        return self._tabled(key) if self._tables else None

    def add(self, key: int, place: Place) -> None:
        if not self._tables or self._tabled(key) is None:
            self._recent.setdefault(key, pack(place))

    def add_table(self, segment: int, table: Table) -> None:
        self._tables.append((segment, table))

    def num_completions(self) -> int:
        keys = set(self._recent).union(*(table.keys for _, table in self._tables))
        return sum(key & 1 for key in keys)

    def _tabled(self, key: int) -> Place | None:
        for segment, table in self._tables:
            if (row := table.row(key)) is not None:
                return Place(segment, table.offsets[row], table.lengths[row])
        return None


def read_segment(segment: Segment, number: int, places: Places) -> None:
    """Adds what the segment holds beyond its position: by its index where it has one, and by reading the rest."""
    known = load_index(segment) if segment.position == 0 else None
    if known is not None:
        places.add_table(number, known)
    whole = segment.position == 0 or known is not None
    found = collect(segment.scan())
    if len(found.keys) < INDEXED_LINES:
        for key, offset, length in zip(found.keys, found.offsets, found.lengths, strict=True):
            places.add(key, Place(number, offset, length))
        return
    table = Table.of(found.keys, found.offsets, found.lengths)
    places.add_table(number, table)
    if whole:
        save_index(segment, table if known is None else known.joined(table))


def collect(lines: Iterable[tuple[bytes, int, int]]) -> Table:
    """Unsorted: the lines in their order."""
    table = Table(array("Q"), array("Q"), array("I"))
    for name, offset, length in lines:
        table.keys.append(record_key(name))
        table.offsets.append(offset)
        table.lengths.append(length)
    return table


def index_path(segment: Path) -> Path:
    return segment.with_suffix(".index")


def save_index(segment: Segment, table: Table) -> None:
    """Writes down what is known of the segment up to its position."""
    body = b"".join(_bytes(table))
    last = max(range(len(table.keys)), key=table.offsets.__getitem__)
    about = (table.keys[last], table.offsets[last], table.lengths[last])
    header = array(
        "Q", [MAGIC, segment.position, segment.num_lines, len(table.keys), *about, zlib.crc32(body, segment.position)]
    )
    path = index_path(segment.path)
    draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        draft.write_bytes(header.tobytes() + body)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        log.info("%s: the index could not be kept (%s); the segment is read again next time", segment.path, error)


def load_index(segment: Segment) -> Table | None:
    """The index, with the segment's position set behind what it covers; None if there is none that fits."""
    try:
        data = index_path(segment.path).read_bytes()
    except OSError:
        return None
    start = HEADER_LENGTH * 8
    header, body = _column("Q", data[:start].ljust(start, b"\0")), memoryview(data)[start:]
    magic, covered, num_lines, count, key, offset, length, checksum = header
    if magic != MAGIC:
        return None
    if len(body) != 20 * count or zlib.crc32(body, covered & 0xFFFFFFFF) != checksum:
        return None
    if not _bears(segment.path, covered, key, offset, length):
        return None
    segment.position, segment.num_lines = covered, num_lines
    ends = 8 * count, 16 * count
    return Table(_column("Q", body[: ends[0]]), _column("Q", body[ends[0] : ends[1]]), _column("I", body[ends[1] :]))


def _bears(path: Path, covered: int, key: int, offset: int, length: int) -> bool:
    """Whether the last line that the index knows stands where it says."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        line = os.pread(descriptor, length, offset)
        name = record_id(line)
        return os.fstat(descriptor).st_size >= covered and name is not None and record_key(name) == key
    finally:
        os.close(descriptor)


def _column(typecode: Literal["Q", "I"], data: bytes | memoryview) -> "array[int]":
    column: array[int] = array(typecode)
    column.frombytes(data)
    return column


def _bytes(table: Table) -> Iterator[bytes]:
    return (column.tobytes() for column in (table.keys, table.offsets, table.lengths))
