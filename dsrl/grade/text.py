"""A short text inside an answer tag, compared without case, articles and punctuation."""

import re
import string

from dsrl.digest import normalised
from dsrl.grade.base import Grader
from dsrl.grade.choice import TAG
from dsrl.part import part

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


@part
class Text(Grader):
    """Normalised exact match, as in SQuAD's evaluation."""

    @property
    def instruction(self) -> str:
        return "Think step by step, then give the answer alone as <answer>answer</answer>."

    def parse(self, reply: str) -> str | None:
        tags = TAG.findall(reply)
        return tags[-1].strip() or None if tags else None

    def parse_anywhere(self, reply: str) -> str | None:
        lines = reply.strip().splitlines()
        return self.parse(reply) or (lines[-1].strip() if lines else None)

    def same(self, first: str, second: str) -> bool:
        return _comparable(first) == _comparable(second)


def _comparable(text: str) -> str:
    """The words that count; where none is left (`<`, `the`), the text as it stands."""
    return normalised(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION))) or normalised(text)
