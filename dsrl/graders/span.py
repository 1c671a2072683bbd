"""A passage of the question, quoted word for word."""

from typing import Self

from pydantic import Field

from dsrl.core.component import component
from dsrl.graders.tagged import Tagged
from dsrl.graders.text import overlap

EDGE = " \t\r\n\"'`.,;:\u201c\u201d\u2018\u2019"


@component("graders.span")
class Span(Tagged):
    """Extraction: the words must stand in the question as they are, spacing and surrounding quotes apart."""

    overlap: float = Field(default=1.0, gt=0, le=1)
    """Least F1 of the common words that counts as right; 1: exactly the gold words."""

    @property
    def wanted(self) -> str:
        return "the words of the text that answer the question, copied exactly,"

    def for_question(self, question: str) -> Self:
        return self._with_question(" ".join(question.split()))

    def read(self, text: str) -> str | None:
        quote = " ".join(text.split()).strip(EDGE)
        return quote if quote and (not self.question or quote in self.question) else None

    def same(self, first: str, second: str) -> bool:
        return first == second or (self.overlap < 1 and overlap(first.split(), second.split()) >= self.overlap)
