"""A short text inside an answer tag, compared without case, articles and punctuation."""

import re
import string
from collections import Counter

from pydantic import Field

from dsrl.core.component import component
from dsrl.core.digest import normalised
from dsrl.graders.tagged import Tagged, last_stated

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


@component("graders.text")
class Text(Tagged):
    """Normalised exact match, as in SQuAD's evaluation, or a share of common words."""

    version = 2
    f1: float = Field(default=1.0, gt=0, le=1)
    """Least F1 of the common words that counts as right; 1: all words, in the same order."""

    @property
    def wanted(self) -> str:
        return "the answer alone"

    def read(self, text: str) -> str | None:
        return text.strip() or None

    def parse_anywhere(self, reply: str) -> str | None:
        parsed = self.parse(reply)
        return parsed if parsed is not None else last_stated(reply) or None

    def same(self, first: str, second: str) -> bool:
        left, right = comparable(first), comparable(second)
        return left == right or (self.f1 < 1 and overlap(left.split(), right.split()) >= self.f1)


def comparable(text: str) -> str:
    """The words that count; where none is left (`<`, `the`), the text as it stands."""
    return normalised(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION))) or normalised(text)


def overlap(first: list[str], second: list[str]) -> float:
    """F1 of two bags of words: the harmonic mean of the shares that they have in common."""
    common = (Counter(first) & Counter(second)).total()
    return 2 * common / (len(first) + len(second)) if common else 0.0
