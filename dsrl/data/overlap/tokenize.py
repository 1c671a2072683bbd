"""Texts as arrays of 64-bit word codes. Case and punctuation are ignored; by `MaskingCoder`, names and numbers too."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy

    Codes = numpy.ndarray[Any, numpy.dtype[numpy.uint64]]
    Ints = numpy.ndarray[Any, numpy.dtype[numpy.int64]]
    Mask = numpy.ndarray[Any, numpy.dtype[numpy.bool_]]

UNSPACED_SCRIPTS = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
"""Scripts in which each character counts as a word."""
OPERATOR = r"[+/^=<>]|(?<=\d)[-*\u00d7\u00f7](?=\d)|(?<=\d )[-*\u00d7\u00f7](?= \d)"
"""Operators are words because short arithmetic questions differ in nothing else; elsewhere they are punctuation."""
WORD = re.compile(rf"[{UNSPACED_SCRIPTS}]|\d+(?:[.,]\d+)*(?![^\W_])|[^\W_{UNSPACED_SCRIPTS}]+|{OPERATOR}")
NUMBER_MASK, NAME_MASK = "#", "@"
"""Neither is matched by `WORD`."""
_NUMERALS = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million
"""
NUMERALS = frozenset(_NUMERALS.split())
PRONOUNS = {"she": "he", "her": "his", "hers": "his", "him": "his", "herself": "himself"}


def words(text: str) -> list[str]:
    return WORD.findall(text)


def normalise_word(word: str) -> str:
    """Lower-case a word; drop the thousands separators of a number."""
    return word.replace(",", "") if word[0].isdigit() else word.lower()


@dataclass(frozen=True)
class CodedTexts:
    """Codes of the words (or n-grams) of many texts, concatenated."""

    codes: "Codes"
    owners: "Ints"
    """Number of the text that each code belongs to, ascending."""
    num_texts: int

    def lengths(self) -> "Ints":
        """Number of codes of each text, shape (num_texts,)."""
        import numpy

        return numpy.bincount(self.owners, minlength=self.num_texts)

    def contents(self) -> Iterator[bytes]:
        """Yield the codes of each text as bytes: equal bytes mean equal words in equal order."""
        start = 0
        for length in self.lengths().tolist():
            yield self.codes[start : start + length].tobytes()
            start += length

    def select(self, mask: "Mask") -> "CodedTexts":
        return CodedTexts(self.codes[mask], self.owners[mask], self.num_texts)

    def document_frequency(self, among: "Mask") -> "Ints":
        """For each entry of `codes`, the number of texts in `among` (a mask over texts) that contain that code."""
        import numpy

        unique, position = numpy.unique(self.codes, return_inverse=True)
        counted = among[self.owners]
        pairs = numpy.unique(position[counted] * self.num_texts + self.owners[counted])
        return numpy.bincount(pairs // max(1, self.num_texts), minlength=len(unique))[position]

    def count_in_ngrams(self, mask: "Mask", size: int) -> "Ints":
        """For each n-gram of this size, how many of its words are set in `mask` (a mask over `codes`)."""
        import numpy

        sums = numpy.concatenate([[0], numpy.cumsum(mask)])
        counts: Ints = sums[size:] - sums[: max(0, len(sums) - size)]
        return counts[self._within_one_text(size)]

    def ngrams(self, sizes: Iterable[int]) -> "dict[int, CodedTexts]":
        """Size -> codes of all n-grams of that size that lie within one text."""
        import numpy

        wanted, by_size = sorted(set(sizes)), {}
        hashes = numpy.zeros(len(self.codes), dtype=numpy.uint64)
        for size in range(1, wanted[-1] + 1 if wanted else 1):
            hashes = hashes[: max(0, len(self.codes) - size + 1)] * numpy.uint64(0x9E3779B97F4A7C15)
            hashes += self.codes[size - 1 :]
            if size in wanted:
                inside = self._within_one_text(size)
                by_size[size] = CodedTexts(hashes[inside], self.owners[: len(hashes)][inside], self.num_texts)
        return by_size

    def deduplicate(self) -> "CodedTexts":
        """Each (code, owner) pair once, sorted by owner and then code."""
        import numpy

        order = numpy.lexsort((self.codes, self.owners))
        codes, owners = self.codes[order], self.owners[order]
        new = numpy.ones(len(codes), dtype=bool)
        new[1:] = (codes[1:] != codes[:-1]) | (owners[1:] != owners[:-1])
        return CodedTexts(codes[new], owners[new], self.num_texts)

    def _within_one_text(self, size: int) -> "Mask":
        same: Mask = self.owners[: max(0, len(self.owners) - size + 1)] == self.owners[size - 1 :]
        return same


class WordCoder(dict[str, int]):
    """Cache of word -> 64-bit code. Codes are the same in every process."""

    def __init__(self, normalise: Callable[[str], str]) -> None:
        self._normalise = normalise

    def __missing__(self, word: str) -> int:
        spelling = self._normalise(word).encode()
        self[word] = code = int.from_bytes(hashlib.blake2b(spelling, digest_size=8).digest(), "big")
        return code

    def encode(self, texts: Sequence[Sequence[str]]) -> CodedTexts:
        import numpy

        lengths = [len(text) for text in texts]
        codes = map(self.__getitem__, chain.from_iterable(texts))
        array = numpy.fromiter(codes, dtype=numpy.uint64, count=sum(lengths))
        return CodedTexts(array, numpy.repeat(numpy.arange(len(texts)), lengths), len(texts))


class MaskingCoder:
    """Codes under which texts that differ only in names and numbers are equal."""

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        """A capitalised word is a name unless it occurs in lower case anywhere in `texts`."""
        self._common = {word for text in texts for word in text if word.islower()}
        self._coder = WordCoder(self._mask_word)
        self._masks = (self._coder[NUMBER_MASK], self._coder[NAME_MASK])

    def _mask_word(self, word: str) -> str:
        lower = word.lower()
        if word[0].isdigit() or lower in NUMERALS:
            return NUMBER_MASK
        return NAME_MASK if word[0].isupper() and lower not in self._common else PRONOUNS.get(lower, lower)

    def encode(self, texts: Sequence[Sequence[str]]) -> CodedTexts:
        """Consecutive equal masks collapse into one, so that first and last name count as one name."""
        import numpy

        coded = self._coder.encode(texts)
        codes, owners = coded.codes, coded.owners
        repeated = numpy.zeros(len(codes), dtype=bool)
        repeated[1:] = (codes[1:] == codes[:-1]) & (owners[1:] == owners[:-1]) & numpy.isin(codes[1:], self._masks)
        return coded.select(~repeated)
