"""The set of all texts that came before, at 16 bytes a text and in a file: its memory doesn't grow with the corpus.

An open-addressing table of 128-bit digests, mapped into memory: the system keeps of it what it has room for.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from dsrl.core.digest import normalised

if TYPE_CHECKING:
    import numpy

SLOTS = 1 << 12
FULL = 0.6
"""Share of the slots that may be taken before the table is moved into one twice as large."""
AT_ONCE = 1 << 16
WIDTH = 16


class Seen:
    """Texts that came before, known by what they say: case and spacing don't count."""

    def __init__(self, path: Path | None = None) -> None:
        """In this file, which is made or gone on with; without one, in a temporary file."""
        self._folder = None if path else TemporaryDirectory(prefix="dsrl-seen-")
        self._path = path or Path(str(self._folder and self._folder.name)) / "digests.bin"
        self._table = self._mapped(self._path)
        self.num_texts = int((self._table[:, 0] != 0).sum())

    def __enter__(self) -> "Seen":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what is not yet on disk."""
        self._table.flush()
        del self._table
        if self._folder is not None:
            self._folder.cleanup()

    def new(self, texts: Sequence[str]) -> list[bool]:
        """Which of the texts came neither before nor earlier in the list; they are remembered."""
        import numpy

        digests = [_digest(text) for text in texts]
        first = {digest: place for place, digest in reversed(list(enumerate(digests)))}
        places = numpy.fromiter(first.values(), dtype=numpy.int64)
        keys = _keys(first)
        self._make_room(len(keys))
        added = _place(self._table, keys)
        self.num_texts += int(added.sum())
        found = numpy.zeros(len(texts), dtype=bool)
        found[places[added]] = True
        return [bool(one) for one in found]

    def _make_room(self, count: int) -> None:
        if self.num_texts + count <= FULL * len(self._table):
            return
        slots = len(self._table)
        while self.num_texts + count > FULL * slots:
            slots *= 2
        larger = self._path.with_name(f".larger-{self._path.name}")
        larger.unlink(missing_ok=True)
        table = self._mapped(larger, slots)
        for start in range(0, len(self._table), AT_ONCE):
            block = self._table[start : start + AT_ONCE]
            _place(table, block[block[:, 0] != 0])
        self._table = table
        larger.replace(self._path)

    @staticmethod
    def _mapped(path: Path, slots: int = SLOTS) -> Any:
        import numpy

        if not path.exists():
            with path.open("wb") as file:
                reserve(file, slots * WIDTH)
        return numpy.memmap(path, dtype="<u8", mode="r+").reshape(-1, 2)


def reserve(file: IO[bytes], size: int) -> None:
    """Zeros, with room for them on the disk: a write into a mapped hole that the disk has no room for would kill us."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.truncate(size)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(normalised(text).encode(), digest_size=WIDTH).digest()


def _keys(digests: Iterable[bytes]) -> "numpy.ndarray[Any, Any]":
    """Two words a digest; the first is odd, so that it is never that of a free slot."""
    import numpy

    keys = numpy.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2).copy()
    keys[:, 0] |= numpy.uint64(1)
    return keys


def _place(table: Any, keys: "numpy.ndarray[Any, Any]") -> "numpy.ndarray[Any, Any]":
    """Put different keys into their slots, all at a time; which of them were not there yet."""
    import numpy

    last = numpy.uint64(len(table) - 1)
    slots = (keys[:, 1] & last).astype(numpy.int64)
    added = numpy.zeros(len(keys), dtype=bool)
    waiting = numpy.arange(len(keys))
    while len(waiting):
        here = slots[waiting]
        free = table[here, 0] == 0
        table[here[free]] = keys[waiting[free]]  # of two that want one slot, the last has it
        mine = (table[here] == keys[waiting]).all(axis=1)
        added[waiting[mine & free]] = True
        waiting = waiting[~mine]
        slots[waiting] = (slots[waiting] + 1) & int(last)
    return added
