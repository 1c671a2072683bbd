"""Inverted indexes over test items: shared n-grams (`NgramOverlap`) and shared words in any order (`WordOverlap`)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsrl.data.overlap.tokenize import CodedTexts, normalise_word

if TYPE_CHECKING:
    from dsrl.data.overlap.tokenize import Codes, Ints, Mask

_NUMERALS = "zero one two three four five six seven eight nine ten eleven twelve"
NUMERALS = {word: str(number) for number, word in enumerate(_NUMERALS.split())}
NUMERALS |= {"twice": "2", "double": "2", "thrice": "3", "triple": "3"}
SUFFIXES = ("ing", "ed", "es", "s")
MIN_STEM_LENGTH = 4
MIN_SHARED_WORDS = 6
MAX_CELLS = 1 << 23
"""Size of the dense table (texts x items) that `WordOverlap` fills at once."""


class Postings:
    """Inverted index: code -> the items that contain it."""

    def __init__(self, items: CodedTexts) -> None:
        """`items` must be deduplicated. `position` is the place in `codes` of each entry of `items`; `counts` is the
        number of items per code."""
        import numpy

        self.codes, self.position, self.counts = numpy.unique(items.codes, return_inverse=True, return_counts=True)
        self._first = numpy.cumsum(self.counts) - self.counts
        self._owners = items.owners[numpy.argsort(items.codes, kind="stable")]

    def find(self, codes: "Codes") -> "tuple[Ints, Mask]":
        """The position of each code in the index, and a mask of those that are in it."""
        import numpy

        if not len(self.codes):
            return numpy.zeros(len(codes), dtype=numpy.int64), numpy.zeros(len(codes), dtype=bool)
        position = numpy.searchsorted(self.codes, codes).clip(max=len(self.codes) - 1)
        return position, self.codes[position] == codes

    def items_at(self, positions: "Ints") -> "Ints":
        """The items of all these positions, concatenated; `counts[position]` of each."""
        import numpy

        first, counts = self._first[positions], self.counts[positions]
        within: Ints = numpy.arange(counts.sum()) - numpy.repeat(numpy.cumsum(counts) - counts, counts)
        return self._owners[within + numpy.repeat(first, counts)]


@dataclass(frozen=True)
class NgramThreshold:
    """How many n-grams of an item a text must contain."""

    max_items: int
    """Ignore n-grams that occur in more items than this."""
    min_share: float = 0.0
    """Of the item's n-grams."""
    min_count: int = 1
    assumed_min: int = 1
    """An item with fewer n-grams counts as having this many."""


class NgramOverlap:
    """All n-grams of one size, and the items that contain them."""

    def __init__(self, ngrams: CodedTexts, distinct: "Mask", threshold: NgramThreshold) -> None:
        """`distinct` masks items that do not repeat another one: only these count for `max_items`."""
        import numpy

        ngrams = ngrams.deduplicate()
        every = Postings(ngrams)
        frequency = numpy.bincount(every.position[distinct[ngrams.owners]], minlength=len(every.codes))
        ngrams = ngrams.select(frequency[every.position] <= threshold.max_items)
        self._postings = Postings(ngrams)
        self._sizes = numpy.maximum(ngrams.lengths(), threshold.assumed_min)
        self._needed = numpy.maximum(numpy.ceil(threshold.min_share * self._sizes - 1e-9), threshold.min_count)

    def find(self, ngrams: CodedTexts) -> Iterator[tuple[int, int, float]]:
        """Yield (text, item, share of the item's n-grams) for every pair that meets the threshold."""
        import numpy

        _, known = self._postings.find(ngrams.codes)
        ngrams = ngrams.select(known).deduplicate()
        position, _ = self._postings.find(ngrams.codes)
        texts, items = numpy.repeat(ngrams.owners, self._postings.counts[position]), self._postings.items_at(position)
        pairs, shared = numpy.unique(texts * len(self._sizes) + items, return_counts=True)
        texts, items = numpy.divmod(pairs, max(1, len(self._sizes)))
        enough = shared >= self._needed[items]
        shares = shared[enough] / self._sizes[items[enough]]
        yield from zip(texts[enough].tolist(), items[enough].tolist(), shares.tolist(), strict=True)


class WordOverlap:
    """IDF-weighted bags of words: finds paraphrases that share words with an item in any order."""

    def __init__(self, words: CodedTexts, distinct: "Mask", max_items: int, min_share: float) -> None:
        """Words in more than `max_items` items weigh nothing. `min_share` is the shared weight over the larger of the
        two texts' weights."""
        import numpy

        words = words.deduplicate()
        self._postings = Postings(words)
        position, num_codes = self._postings.position, len(self._postings.codes)
        frequency = numpy.maximum(numpy.bincount(position[distinct[words.owners]], minlength=num_codes), 1)
        self._unknown_weight = math.log(distinct.sum() + 1)
        self._weights = numpy.where(frequency <= max_items, self._unknown_weight - numpy.log(frequency), 0.0)
        self._totals = numpy.bincount(words.owners, self._weights[position], minlength=words.num_texts)
        self._min_share = min_share

    def find(self, words: CodedTexts) -> Iterator[tuple[int, int, float]]:
        """Yield (text, item, share) for every pair with at least `min_share` and `MIN_SHARED_WORDS` in common."""
        import numpy

        words, step = words.deduplicate(), max(1, MAX_CELLS // max(1, len(self._totals)))
        for start in range(0, words.num_texts if len(self._weights) else 0, step):
            first, last = numpy.searchsorted(words.owners, (start, start + step))
            num_texts = min(step, words.num_texts - start)
            block = CodedTexts(words.codes[first:last], words.owners[first:last] - start, num_texts)
            for text, item, share in self._find_in_block(block):
                yield start + text, item, share

    def _find_in_block(self, words: CodedTexts) -> Iterator[tuple[int, int, float]]:
        """Fill one dense table of shape (texts of the block, items)."""
        import numpy

        num_items = len(self._totals)
        position, known = self._postings.find(words.codes)
        weights = numpy.where(known, self._weights[position], self._unknown_weight)
        totals = numpy.bincount(words.owners, weights, minlength=words.num_texts)
        used = numpy.flatnonzero(known & (weights > 0))
        counts, num_cells = self._postings.counts[position[used]], words.num_texts * num_items
        cell = numpy.repeat(words.owners[used] * num_items, counts) + self._postings.items_at(position[used])
        common = numpy.bincount(cell, numpy.repeat(weights[used], counts), minlength=num_cells)
        pairs = numpy.flatnonzero(numpy.bincount(cell, minlength=num_cells) >= MIN_SHARED_WORDS)
        texts, items = numpy.divmod(pairs, num_items)
        shares = common[pairs] / numpy.maximum(totals[texts], self._totals[items])
        near = shares >= self._min_share
        yield from zip(texts[near].tolist(), items[near].tolist(), shares[near].tolist(), strict=True)


def stem(word: str) -> str:
    """Strip an English suffix; write a small numeral as digits."""
    word = normalise_word(word)
    for suffix in SUFFIXES:
        if word.endswith(suffix) and len(word) >= MIN_STEM_LENGTH + len(suffix):
            return word[: -len(suffix)]
    return NUMERALS.get(word, word)
