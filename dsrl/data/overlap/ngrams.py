"""Runs of words of many items, looked up all at once: which items share enough of theirs with a text."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsrl.data.overlap.postings import Postings, once
from dsrl.data.overlap.tokenize import Coded

if TYPE_CHECKING:
    from dsrl.data.overlap.tokenize import Flags


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
    """The runs of one length, and the items that they stand in."""

    def __init__(self, rows: Coded, distinct: "Flags", demand: Demand) -> None:
        """`distinct`: items that are no repetition of another."""
        import numpy

        rows = once(rows)
        known = Postings(rows)
        spread = numpy.bincount(known.place[distinct[rows.owners]], minlength=len(known.codes))
        rows = rows.only(spread[known.place] <= demand.most)
        self._postings = Postings(rows)
        self._sizes = numpy.maximum(rows.lengths(), demand.least)
        self._needed = numpy.maximum(numpy.ceil(demand.share * self._sizes - 1e-9), demand.fewest)

    def found(self, rows: Coded) -> Iterator[tuple[int, int, float]]:
        """(text, item, share of the item's runs) for every pair in which the text has enough of them."""
        import numpy

        _, there = self._postings.find(rows.codes)
        rows = once(rows.only(there))
        place, _ = self._postings.find(rows.codes)
        texts, items = numpy.repeat(rows.owners, self._postings.counts[place]), self._postings.items(place)
        pairs, found = numpy.unique(texts * len(self._sizes) + items, return_counts=True)
        texts, items = numpy.divmod(pairs, max(1, len(self._sizes)))
        enough = found >= self._needed[items]
        shares = found[enough] / self._sizes[items[enough]]
        yield from zip(texts[enough].tolist(), items[enough].tolist(), shares.tolist(), strict=True)
