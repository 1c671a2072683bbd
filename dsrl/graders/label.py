"""One label out of a given set inside an answer tag."""

import re
from functools import cached_property

from pydantic import Field, model_validator

from dsrl.core.component import Many, component
from dsrl.core.digest import normalised
from dsrl.core.errors import UserError
from dsrl.graders.tagged import TRIM, Tagged, last_stated

CLAUSE = re.compile(r"[,.;:(]|\b(?:because|since|as)\b")
MAX_TEXT = 1_000


@component("graders.label")
class Label(Tagged):
    """Classification: `<answer>entailment</answer>`; case doesn't count, and a label may have other spellings."""

    labels: Many[str] = Field(min_length=2)
    """The labels to choose from, as they are shown."""
    synonyms: dict[str, Many[str]] = Field(default_factory=dict)
    """Label -> further spellings that mean it."""

    @model_validator(mode="after")
    def _one_meaning_each(self) -> "Label":
        if unknown := sorted(self.synonyms.keys() - set(self.labels)):
            raise UserError("answer.synonyms: no such label", got=", ".join(unknown), allowed=self.labels)
        meanings: dict[str, str] = {}
        for spelling, label in self._spellings():
            if not spelling:
                raise UserError("answer.labels: a label without a letter", got=repr(label), next_step="take it out")
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
        return self.meanings.get(_plain(text)) if len(text) <= MAX_TEXT else None

    def parse_anywhere(self, reply: str) -> str | None:
        stated = last_stated(reply)
        tries = (self.parse(reply), self.read(stated), self.read(CLAUSE.split(stated, maxsplit=1)[0]))
        return next((label for label in tries if label is not None), None)

    @cached_property
    def meanings(self) -> dict[str, str]:
        """Every spelling, and the label that it means."""
        return dict(self._spellings())

    def _spellings(self) -> list[tuple[str, str]]:
        own = [(_plain(label), label) for label in self.labels]
        return own + [(_plain(other), label) for label, others in self.synonyms.items() for other in others]


def _plain(text: str) -> str:
    return normalised(text).strip(TRIM + ",;:!()[]")
