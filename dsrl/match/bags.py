"""Words of items whatever their order: what a text that tells an item anew, in other words, still shares with it."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dsrl.match.runs import once, spans
from dsrl.match.words import Coded, plain

if TYPE_CHECKING:
    from dsrl.match.words import Codes, Flags, Numbers

_FIGURES = "zero one two three four five six seven eight nine ten eleven twelve"
FIGURES = {word: str(number) for number, word in enumerate(_FIGURES.split())}
FIGURES |= {"twice": "2", "double": "2", "thrice": "3", "triple": "3"}
ENDINGS = ("ing", "ed", "es", "s")
SHORTEST = 4
"""Letters that are left of a word without its ending."""
FEWEST = 6
"""Words that a text and an item must share."""
CELLS = 1 << 23
"""Pairs of a text and an item that are held in memory at once."""


def stem(word: str) -> str:
    """A word without its ending, a small number as a figure."""
    word = plain(word)
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) >= SHORTEST + len(ending):
            return word[: -len(ending)]
    return FIGURES.get(word, word)


class Bags:
    """The words of every item, each weighted by how few items have it: log of their inverse share."""

    def __init__(self, words: Coded, distinct: "Flags", most: int, share: float) -> None:
        """`most`: items in which a word that counts may stand; `share`: of the weight of either text, in both."""
        import numpy

        codes, owners = once(words)
        self._known, place, self._counts = numpy.unique(codes, return_inverse=True, return_counts=True)
        self._first = numpy.cumsum(self._counts) - self._counts
        self._owners = owners[numpy.argsort(codes, kind="stable")]
        spread = numpy.maximum(numpy.bincount(place[distinct[owners]], minlength=len(self._known)), 1)
        self._unheard = math.log(distinct.sum() + 1)
        self._weights = numpy.where(spread <= most, self._unheard - numpy.log(spread), 0.0)
        self._totals = numpy.bincount(owners, self._weights[place], minlength=words.count)
        self._share = share

    def found(self, words: Coded) -> Iterator[tuple[int, int, float]]:
        """(text, item, share) for every pair that has enough in common."""
        import numpy

        step = max(1, CELLS // max(1, len(self._totals)))
        codes, texts = once(words)
        for start in range(0, words.count if len(self._known) else 0, step):
            first, last = numpy.searchsorted(texts, (start, start + step))
            count = min(step, words.count - start)
            for text, item, share in self._block(codes[first:last], texts[first:last] - start, count):
                yield start + text, item, share

    def _block(self, codes: "Codes", texts: "Numbers", count: int) -> Iterator[tuple[int, int, float]]:
        """Of so many texts, by a table of all of them and all items."""
        import numpy

        place = numpy.searchsorted(self._known, codes).clip(max=len(self._known) - 1)
        heard = self._known[place] == codes
        weights = numpy.where(heard, self._weights[place], self._unheard)
        totals = numpy.bincount(texts, weights, minlength=count)
        used = numpy.flatnonzero(heard & (weights > 0))
        counts, cells = self._counts[place[used]], count * len(self._totals)
        items = self._owners[spans(self._first[place[used]], counts)]
        pairs = numpy.repeat(texts[used], counts) * len(self._totals) + items
        common = numpy.bincount(pairs, numpy.repeat(weights[used], counts), minlength=cells)
        pairs = numpy.flatnonzero(numpy.bincount(pairs, minlength=cells) >= FEWEST)
        found, items = numpy.divmod(pairs, len(self._totals))
        shares = common[pairs] / numpy.maximum(totals[found], self._totals[items])
        near = shares >= self._share
        yield from zip(found[near].tolist(), items[near].tolist(), shares[near].tolist(), strict=True)
