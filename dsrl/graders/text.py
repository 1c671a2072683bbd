"""Short texts inside an answer tag: any text (`Text`), or a passage of the question (`Span`)."""

import json
import re
from collections import Counter
from functools import lru_cache
from typing import Any, Self

from pydantic import Field

from dsrl.core.component import component
from dsrl.graders.base import any_of
from dsrl.graders.normalize import HTML_TAG, LATEX_TEXT, clean
from dsrl.graders.quantities import fraction, spell
from dsrl.graders.tagged import Tagged, last_stated

EDGE = " \t\r\n\"'`.,;:"
OPERATORS = {"\u2264": "<=", "\u2265": ">=", "\u2260": "!=", "\u2248": "~", "\u00b1": "+-"}
OPERATOR = re.compile(r"\s*(<=|>=|!=|[<>=~^])\s*")
ACRONYM = re.compile(r"\b(?:[^\W\d_]\.\s?){2,}(?:[^\W\d_]\b(?![.']))?")
PERCENT = re.compile(r"(?<=\d)\s+%")
SEPARATOR = re.compile(
    r"(?<=[^\W\d_])[-/:;,&_](?=[^\W_])|[,;:](?=[^\W\d_])|[()\[\]{}\"?\u2026|]|!(?!=)|(?<!\d)[,;](?!\d)|--+"
)
APOSTROPHE = re.compile(r"(?<=[^\W\d_])'(?=[^\W\d_])")
NUMBER = re.compile(
    r"([-+]?)([$\u20ac\u00a3\u00a5]?)([-+]?)(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d*\.?\d+(?:e[-+]?\d{1,3})?)(%?)"
)
ARTICLES = frozenset({"an", "the"})
OPTIONAL_SIGN = re.compile(r"[$\u20ac\u00a3\u00a5](?=[\d.])|(?<=\d)%")


@component("graders.text")
class Text(Tagged):
    """Exact match without case, articles and the punctuation around words, or a share of common words.

    As SQuAD's evaluation, except that signs with a meaning stay: `C++`, `O-`, `3.5`, `p<0.05`, `hepatitis A`.
    """

    version = 3
    accepts_alternatives = True
    f1: float = Field(default=1.0, gt=0, le=1)
    """Least F1 of the common words that counts as right; 1: all words, in the same order."""

    @property
    def wanted(self) -> str:
        return "the answer alone"

    def read(self, text: str) -> str | None:
        return clean(text).strip() or None

    def parse_anywhere(self, reply: str) -> str | None:
        parsed = self.parse(reply)
        return parsed if parsed is not None else clean(last_stated(reply)) or None

    def gold_cell(self, value: Any) -> str | None:
        array = _array_of_strings(value)
        return super().gold_cell(value) if array is None else any_of([self.gold(item) for item in array])

    def same(self, first: str, second: str) -> bool:
        if first == second:
            return True
        left, right = comparable(first), comparable(second)
        return (
            _agree(left, right)
            or _agree(comparable(first, articles=True), comparable(second, articles=True))
            or (self.f1 < 1 and overlap(left.split(), right.split()) >= self.f1)
        )


@component("graders.span")
class Span(Tagged):
    """Extraction: the words must stand in the question as they are, spacing and surrounding quotes apart."""

    version = 2
    accepts_alternatives = True
    overlap: float = Field(default=1.0, gt=0, le=1)
    """Least F1 of the common words that counts as right; 1: exactly the gold words."""

    @property
    def wanted(self) -> str:
        return "the words of the text that answer the question, copied exactly,"

    def for_question(self, question: str) -> Self:
        return self._with_question(" ".join(clean(question).split()))

    def read(self, text: str) -> str | None:
        quote = " ".join(clean(text).split()).strip(EDGE)
        return quote if quote and (not self.question or quote in self.question) else None

    def gold_cell(self, value: Any) -> str | None:
        array = _array_of_strings(value)
        return super().gold_cell(value) if array is None else any_of([self.gold(item) for item in array])

    def same(self, first: str, second: str) -> bool:
        return first == second or (self.overlap < 1 and overlap(first.split(), second.split()) >= self.overlap)


def _array_of_strings(value: Any) -> list[str] | None:
    """The strings of a cell that holds a JSON array as text, as CSV files must."""
    if not isinstance(value, str) or not value.lstrip().startswith('["'):
        return None
    try:
        items = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return items if isinstance(items, list) and all(isinstance(item, str) for item in items) else None


@lru_cache(maxsize=16_384)
def comparable(text: str, articles: bool = False) -> str:
    """The words that count, in one spelling; the text as it stands if none is left (`the`).

    Punctuation separates words and is removed at their edges; a sign beside a letter or digit stays. Numbers are
    spelled by value (`1,000` is `1000`). Articles are removed only with `articles`, where another word follows; a
    capital `A` inside the text is a name (`hepatitis A virus`).
    """
    plain = LATEX_TEXT.sub(r"\1", HTML_TAG.sub(" ", clean(text)))
    for sign, spelled in OPERATORS.items():
        plain = plain.replace(sign, spelled)
    plain = ACRONYM.sub(lambda found: re.sub(r"[.\s]", "", found[0]) + " ", PERCENT.sub("%", plain))
    plain = OPERATOR.sub(r" \1 ", APOSTROPHE.sub("", plain))
    tokens = [_token(token) for token in SEPARATOR.sub(" ", plain).split()]
    words = [token for token in tokens if token]
    if articles:
        last = len(words) - 1
        words = [word for place, word in enumerate(words) if place == last or not _is_article(word, place)]
    return " ".join(word.casefold() for word in words) or " ".join(plain.casefold().split())


def _is_article(word: str, place: int) -> bool:
    return word.lower() in ARTICLES or word == "a" or (word == "A" and place == 0)


def _token(token: str) -> str:
    """A word without the punctuation around it; a number in one spelling; nothing for a dash between words."""
    token = token.strip("'\"`*_").rstrip(".,:;'\"`*_").lstrip(",;'\"`")
    if token in ("-", "--", ".", "/", "!"):
        return ""
    number = NUMBER.fullmatch(token.lower())
    if number is None:
        return token
    value = fraction(number[4])
    spelled = spell(value) if value is not None else None
    sign = "-" if "-" in number[1] + number[3] and value else ""
    return token if spelled is None else f"{sign}{number[2]}{spelled}{number[5]}"


def _agree(first: str, second: str) -> bool:
    """Whether two comparable texts are equal; a currency or percent sign must agree only if both have one."""
    if first == second:
        return True
    if (OPTIONAL_SIGN.search(first) is None) == (OPTIONAL_SIGN.search(second) is None):
        return False
    return OPTIONAL_SIGN.sub("", first) == OPTIONAL_SIGN.sub("", second)


def overlap(first: list[str], second: list[str]) -> float:
    """F1 of two bags of words: the harmonic mean of the shares that they have in common."""
    common = (Counter(first) & Counter(second)).total()
    return 2 * common / (len(first) + len(second)) if common else 0.0
