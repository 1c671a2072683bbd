"""Words of items whatever their order: what a text that tells an item anew, in other words, still shares with it."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dsrl.data.overlap.postings import Postings, once
from dsrl.data.overlap.tokenize import Coded, plain

if TYPE_CHECKING:
    from dsrl.data.overlap.tokenize import Flags

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

        words = once(words)
        self._postings = Postings(words)
        place, kinds = self._postings.place, len(self._postings.codes)
        spread = numpy.maximum(numpy.bincount(place[distinct[words.owners]], minlength=kinds), 1)
        self._unheard = math.log(distinct.sum() + 1)
        self._weights = numpy.where(spread <= most, self._unheard - numpy.log(spread), 0.0)
        self._totals = numpy.bincount(words.owners, self._weights[place], minlength=words.count)
        self._share = share

    def found(self, words: Coded) -> Iterator[tuple[int, int, float]]:
        """(text, item, share) for every pair that has enough in common."""
        import numpy

        words, step = once(words), max(1, CELLS // max(1, len(self._totals)))
        for start in range(0, words.count if len(self._weights) else 0, step):
            first, last = numpy.searchsorted(words.owners, (start, start + step))
            block = Coded(words.codes[first:last], words.owners[first:last] - start, min(step, words.count - start))
            for text, item, share in self._block(block):
                yield start + text, item, share

    def _block(self, words: Coded) -> Iterator[tuple[int, int, float]]:
        """By a table of all of these texts and all items."""
        import numpy

        place, heard = self._postings.find(words.codes)
        weights = numpy.where(heard, self._weights[place], self._unheard)
        totals = numpy.bincount(words.owners, weights, minlength=words.count)
        used = numpy.flatnonzero(heard & (weights > 0))
        counts, cells = self._postings.counts[place[used]], words.count * len(self._totals)
        cell = numpy.repeat(words.owners[used] * len(self._totals), counts) + self._postings.items(place[used])
        common = numpy.bincount(cell, numpy.repeat(weights[used], counts), minlength=cells)
        pairs = numpy.flatnonzero(numpy.bincount(cell, minlength=cells) >= FEWEST)
        texts, items = numpy.divmod(pairs, len(self._totals))
        shares = common[pairs] / numpy.maximum(totals[texts], self._totals[items])
        near = shares >= self._share
        yield from zip(texts[near].tolist(), items[near].tolist(), shares[near].tolist(), strict=True)
