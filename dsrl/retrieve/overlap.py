"""Passages that hold a piece of the test set: samples written from them would give it away."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dsrl.sample import Passage

if TYPE_CHECKING:
    import numpy

WORD = re.compile(r"\w+")
LONG, SHORT = 13, 8
"""Words in a row: of the longer rows one is too many, of the shorter ones half of an item's."""
SHARE = 0.5
FEWEST = 5
"""Words of the shortest item that is sought as a whole."""


class TestOverlap:
    """Rows of words of all test items, as sorted hashes: eight bytes a row, whatever the words."""

    __test__ = False  # it is no test, whatever its name

    def __init__(self, items: Sequence[str]) -> None:
        import numpy

        words = [WORD.findall(item.lower()) for item in items]
        self._long = numpy.unique(_joined([rows(item, LONG) for item in words]))
        short = [numpy.unique(rows(item, SHORT)) for item in words]
        owners = numpy.repeat(numpy.arange(len(short)), [len(some) for some in short])
        order = numpy.argsort(_joined(short), kind="stable")
        self._short, self._owners = _joined(short)[order], owners[order]
        self._sizes = numpy.array([max(1, len(some)) for some in short])
        self._whole = {len(item): set[int]() for item in words if FEWEST <= len(item) < LONG}
        for item in words:
            if FEWEST <= len(item) < LONG:
                self._whole[len(item)].update(rows(item, len(item)).tolist())

    def __call__(self, passage: Passage) -> str | None:
        """Why the passage can't be used; None where it can."""
        import numpy

        words = WORD.findall(passage.text.lower())
        if _any_in(self._long, rows(words, LONG)):
            return f"{LONG} words of a test item"
        if any(not found.isdisjoint(rows(words, size).tolist()) for size, found in self._whole.items()):
            return "a whole test item"
        if self._most_of_one(numpy.unique(rows(words, SHORT))):
            return "most of a test item"
        return None

    def _most_of_one(self, sought: "numpy.ndarray[Any, Any]") -> bool:
        """Whether half of the short rows of any item are among these."""
        import numpy

        first, last = (numpy.searchsorted(self._short, sought, side) for side in ("left", "right"))
        places = [numpy.arange(begin, end) for begin, end in zip(first, last, strict=True) if end > begin]
        if not places:
            return False
        counts = numpy.bincount(self._owners[numpy.concatenate(places)], minlength=len(self._sizes))
        return bool((counts >= SHARE * self._sizes).any())


def rows(words: Sequence[str], size: int) -> "numpy.ndarray[Any, Any]":
    """Hashes of every so many words in a row; the same within one process only."""
    import numpy

    if len(words) < size:
        return numpy.empty(0, dtype=numpy.uint64)
    hashes = numpy.fromiter((hash(word) & (2**64 - 1) for word in words), dtype=numpy.uint64, count=len(words))
    found = numpy.zeros(len(words) - size + 1, dtype=numpy.uint64)
    for place in range(size):
        found = found * numpy.uint64(0x9E3779B97F4A7C15) + hashes[place : len(words) - size + 1 + place]
    return found


def _any_in(ordered: "numpy.ndarray[Any, Any]", sought: "numpy.ndarray[Any, Any]") -> bool:
    """Whether any of the few is among the many, which are in order: `numpy.isin` would go through all of these."""
    import numpy

    first, last = (numpy.searchsorted(ordered, sought, side) for side in ("left", "right"))
    return bool((last > first).any())


def _joined(parts: "Sequence[numpy.ndarray[Any, Any]]") -> "numpy.ndarray[Any, Any]":
    import numpy

    return numpy.concatenate(parts) if parts else numpy.empty(0, dtype=numpy.uint64)
