"""Texts as arrays of word codes, without case and punctuation; masked ones also without names and numbers."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy

    Codes = numpy.ndarray[Any, numpy.dtype[numpy.uint64]]
    Numbers = numpy.ndarray[Any, numpy.dtype[numpy.int64]]
    Flags = numpy.ndarray[Any, numpy.dtype[numpy.bool_]]

DENSE = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
"""Scripts without spaces: each character is a word."""
OPERATOR = r"[+/^=<>]|(?<=\d)[-*\u00d7\u00f7](?=\d)|(?<=\d )[-*\u00d7\u00f7](?= \d)"
"""What tells one short question of arithmetic from another; elsewhere these are punctuation."""
WORD = re.compile(rf"[{DENSE}]|\d+(?:[.,]\d+)*(?![^\W_])|[^\W_{DENSE}]+|{OPERATOR}")
NUMBER, NAME = "#", "@"
"""What stands for any number and any name in masked text; neither is a word."""
_NUMERALS = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million
"""
NUMERALS = frozenset(_NUMERALS.split())
PRONOUNS = {"she": "he", "her": "his", "hers": "his", "him": "his", "herself": "himself"}


def words(text: str) -> list[str]:
    """As they stand there, with their case."""
    return WORD.findall(text)


def plain(word: str) -> str:
    """A word without its case, a number without the marks between its digits."""
    return word.replace(",", "") if word[0].isdigit() else word.lower()


@dataclass(frozen=True)
class Coded:
    """The words of many texts, one after the other."""

    codes: "Codes"
    owners: "Numbers"
    """Number of the text that each word stands in."""
    count: int
    """Texts."""

    def lengths(self) -> "Numbers":
        """Words of each text."""
        import numpy

        return numpy.bincount(self.owners, minlength=self.count)

    def contents(self) -> Iterator[bytes]:
        """Each text as a whole: equal words, equal bytes."""
        start = 0
        for length in self.lengths().tolist():
            yield self.codes[start : start + length].tobytes()
            start += length

    def only(self, flags: "Flags") -> "Coded":
        """Those words, or rows, alone."""
        return Coded(self.codes[flags], self.owners[flags], self.count)

    def spread(self, among: "Flags") -> "Numbers":
        """In how many of these texts each word stands, for every place in `codes`."""
        import numpy

        known, place = numpy.unique(self.codes, return_inverse=True)
        pairs = numpy.unique(place[among[self.owners]] * self.count + self.owners[among[self.owners]])
        return numpy.bincount(pairs // max(1, self.count), minlength=len(known))[place]

    def counted(self, flags: "Flags", size: int) -> "Numbers":
        """How many words with a flag stand in each of the rows of this size."""
        import numpy

        sums = numpy.concatenate([[0], numpy.cumsum(flags)])
        counts: Numbers = sums[size:] - sums[: max(0, len(sums) - size)]
        return counts[self._inside(size)]

    def _inside(self, size: int) -> "Flags":
        """Which rows of this size lie within one text."""
        same: Flags = self.owners[: max(0, len(self.owners) - size + 1)] == self.owners[size - 1 :]
        return same

    def rows(self, sizes: Iterable[int]) -> "dict[int, Coded]":
        """Codes of so many words in a row, within one text, for each size."""
        import numpy

        wanted, found = sorted(set(sizes)), {}
        rows = numpy.zeros(len(self.codes), dtype=numpy.uint64)
        for size in range(1, wanted[-1] + 1 if wanted else 1):
            rows = rows[: max(0, len(self.codes) - size + 1)] * numpy.uint64(0x9E3779B97F4A7C15)
            rows += self.codes[size - 1 :]
            if size in wanted:
                inside = self._inside(size)
                found[size] = Coded(rows[inside], self.owners[: len(rows)][inside], self.count)
        return found


class Coder(dict[str, int]):
    """Word -> its code, the same in every process; each is worked out once."""

    def __init__(self, spelling: Callable[[str], str]) -> None:
        self._spelling = spelling

    def __missing__(self, word: str) -> int:
        spelled = self._spelling(word).encode()
        self[word] = code = int.from_bytes(hashlib.blake2b(spelled, digest_size=8).digest(), "big")
        return code

    def coded(self, texts: Sequence[Sequence[str]]) -> Coded:
        """The words of these texts as codes."""
        import numpy

        lengths = [len(text) for text in texts]
        every = map(self.__getitem__, chain.from_iterable(texts))
        codes = numpy.fromiter(every, dtype=numpy.uint64, count=sum(lengths))
        return Coded(codes, numpy.repeat(numpy.arange(len(texts)), lengths), len(texts))


class Masker:
    """Spells words so that texts which differ in names and numbers alone are the same."""

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        """`texts`: those in which a word that is written small anywhere is no name."""
        self._common = {word for text in texts for word in text if word.islower()}
        self._coder = Coder(self.spelled)
        self._masks = (self._coder[NUMBER], self._coder[NAME])

    def spelled(self, word: str) -> str:
        small = word.lower()
        if word[0].isdigit() or small in NUMERALS:
            return NUMBER
        return NAME if word[0].isupper() and small not in self._common else PRONOUNS.get(small, small)

    def coded(self, texts: Sequence[Sequence[str]]) -> Coded:
        """Of several names, or numbers, in a row one is left: first and last name are as good as one."""
        import numpy

        coded = self._coder.coded(texts)
        codes, owners = coded.codes, coded.owners
        again = numpy.zeros(len(codes), dtype=bool)
        again[1:] = (codes[1:] == codes[:-1]) & (owners[1:] == owners[:-1]) & numpy.isin(codes[1:], self._masks)
        return Coded(codes[~again], owners[~again], coded.count)
