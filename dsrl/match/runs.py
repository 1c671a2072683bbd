"""Runs of words of many items, looked up all at once: which items share enough of theirs with a text."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsrl.match.words import Coded

if TYPE_CHECKING:
    from dsrl.match.words import Codes, Flags, Numbers


@dataclass(frozen=True)
class Demand:
    """How many of an item's runs a text must have."""

    most: int
    """A run that stands in more items than that isn't looked at."""
    share: float = 0.0
    """Of the item's runs."""
    fewest: int = 1
    """Runs, however few the item has."""
    least: int = 1
    """An item with fewer runs counts as having so many."""


class Runs:
    """The runs of one length, as sorted codes with the items that they stand in."""

    def __init__(self, rows: Coded, distinct: "Flags", demand: Demand) -> None:
        """`distinct`: items that are no repetition of another."""
        import numpy

        codes, owners = once(rows)
        known, place = numpy.unique(codes, return_inverse=True)
        spread = numpy.bincount(place[distinct[owners]], minlength=len(known))
        kept = spread[place] <= demand.most
        order = numpy.argsort(codes[kept], kind="stable")
        self._codes, self._owners = codes[kept][order], owners[kept][order]
        self._sizes = numpy.maximum(numpy.bincount(self._owners, minlength=len(distinct)), demand.least)
        self._needed = numpy.maximum(numpy.ceil(demand.share * self._sizes - 1e-9), demand.fewest)

    def found(self, rows: Coded) -> Iterator[tuple[int, int, float]]:
        """(text, item, share of the item's runs) for every pair in which the text has enough of them."""
        import numpy

        codes, texts = once(rows)
        first, last = (numpy.searchsorted(self._codes, codes, side) for side in ("left", "right"))
        hits = numpy.flatnonzero(last > first)
        counts = last[hits] - first[hits]
        items = self._owners[spans(first[hits], counts)]
        pairs, found = numpy.unique(numpy.repeat(texts[hits], counts) * len(self._sizes) + items, return_counts=True)
        texts, items = numpy.divmod(pairs, max(1, len(self._sizes)))
        enough = found >= self._needed[items]
        shares = found[enough] / self._sizes[items[enough]]
        yield from zip(texts[enough].tolist(), items[enough].tolist(), shares.tolist(), strict=True)


def once(rows: Coded) -> "tuple[Codes, Numbers]":
    """Codes and owners, each pair of them once."""
    import numpy

    order = numpy.lexsort((rows.codes, rows.owners))
    codes, owners = rows.codes[order], rows.owners[order]
    new = numpy.ones(len(codes), dtype=bool)
    new[1:] = (codes[1:] != codes[:-1]) | (owners[1:] != owners[:-1])
    return codes[new], owners[new]


def spans(first: "Numbers", counts: "Numbers") -> "Numbers":
    """So many numbers from each first one on, one after the other."""
    import numpy

    within: Numbers = numpy.arange(counts.sum()) - numpy.repeat(numpy.cumsum(counts) - counts, counts)
    return within + numpy.repeat(first, counts)
