"""ROUGE-L between inputs, and the filter that Self-Instruct makes of it."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

WORD = re.compile(r"[a-z0-9]+")


def words(text: str) -> list[str]:
    """Lower-case runs of letters and digits, as the usual ROUGE scorer counts them; of other scripts, any word."""
    return WORD.findall(text.lower()) or re.findall(r"\w+", text.lower())


def common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, in one pass over `second` with `first` as the bits of an integer
    (Hyyro 2004)."""
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    mask = (1 << len(first)) - 1
    row = mask
    for word in second:
        met = row & places.get(word, 0)
        row = (row + met | row - met) & mask
    return len(first) - row.bit_count()


def rouge_l(first: Sequence[str], second: Sequence[str]) -> float:
    """F-measure of the longest common subsequence: 2 * common / (length + length)."""
    total = len(first) + len(second)
    return 2 * common(first, second) / total if total else 1.0


@dataclass
class Dissimilar:
    """Inputs of a fit length that share less than so much with every one before."""

    most: float
    min_words: int
    max_words: int | None
    known: list[list[str]] = field(default_factory=list)

    @classmethod
    def to(cls, texts: Iterable[str], most: float, min_words: int, max_words: int | None) -> "Dissimilar":
        """Begins with these texts."""
        return cls(most, min_words, max_words, [words(text) for text in texts])

    def fault(self, text: str) -> str | None:
        found = words(text)
        if len(found) < self.min_words or (self.max_words is not None and len(found) > self.max_words):
            return "unfit length"
        return "too similar" if any(self._near(found, other) for other in self.known) else None

    def _near(self, one: Sequence[str], other: Sequence[str]) -> bool:
        """Lengths alone may say no."""
        bound = 2 * min(len(one), len(other)) / (len(one) + len(other) or 1)
        return bound >= self.most and rouge_l(one, other) >= self.most

    def add(self, text: str) -> None:
        self.known.append(words(text))
