"""One label out of a given set inside an answer tag."""

import re
from collections.abc import Iterator
from functools import cached_property

from pydantic import Field, model_validator

from dsrl.core.component import Many, component
from dsrl.core.errors import UserError
from dsrl.graders.normalize import fold, strip_markup
from dsrl.graders.tagged import TRIM, Tagged, last_stated

CLAUSE = re.compile(r"[,.;:(]|\b(?:because|since|as)\b")
MAX_TEXT = 1_000


@component("graders.label")
class Label(Tagged):
    """Classification: `<answer>entailment</answer>`; case doesn't count, and a label may have other spellings."""

    version = 2
    labels: Many[str] = Field(min_length=2)
    """The labels to choose from, as they are shown."""
    synonyms: dict[str, Many[str]] = Field(default_factory=dict)
    """Label -> further spellings that mean it."""

    @model_validator(mode="after")
    def _check_meanings(self) -> "Label":
        if unknown := sorted(self.synonyms.keys() - set(self.labels)):
            raise UserError("answer.synonyms: no such label", got=", ".join(unknown), allowed=self.labels)
        meanings: dict[str, str] = {}
        for spelling, label in self._spellings():
            if not spelling:
                raise UserError("answer.labels: a label has no letters", got=repr(label), next_step="remove it")
            if meanings.setdefault(spelling, label) != label or list(self.labels).count(label) > 1:
                raise UserError(
                    f"answer.labels: `{spelling}` would mean more than one label",
                    got=f"{meanings[spelling]}, {label}",
                    next_step="give each label and each synonym once (case doesn't count)",
                )
        return self

    @property
    def answers(self) -> tuple[str, ...]:
        return self.labels

    @property
    def wanted(self) -> str:
        return f"the right label ({', '.join(self.labels[:-1])} or {self.labels[-1]})"

    @property
    def placeholder(self) -> str:
        return "label"

    def read(self, text: str) -> str | None:
        if len(text) > MAX_TEXT:
            return None
        return self.meanings.get(_bare(text)) or self.meanings.get(_bare(strip_markup(text)))

    def parse_anywhere(self, reply: str) -> str | None:
        stated = last_stated(reply)
        attempts = (self.parse(reply), self.read(stated), self.read(CLAUSE.split(stated, maxsplit=1)[0]))
        return next((label for label in attempts if label is not None), None)

    @cached_property
    def meanings(self) -> dict[str, str]:
        """Spelling -> the label that it means."""
        return dict(self._spellings())

    def _spellings(self) -> Iterator[tuple[str, str]]:
        for label in self.labels:
            yield _bare(label), label
            for synonym in self.synonyms.get(label, ()):
                yield _bare(synonym), label


def _bare(text: str) -> str:
    return fold(text).strip(TRIM + ",;:!()[]")
