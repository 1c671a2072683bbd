"""What every answer kind does: read an answer out of a reply, compare it with the gold answer, and grade."""

import copy
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Self

from dsrl.core.component import Component, record
from dsrl.core.digest import digest
from dsrl.core.errors import UserError
from dsrl.graders.normalize import clean, fold

RIGHT, WRONG, NO_ANSWER, UNDECIDED = "right", "wrong", "no answer", "undecided"

ANY_OF = '{"any of": ['
"""How the canonical answer of a question with several right answers begins."""


@record
class Grade:
    """The verdict on one reply."""

    correct: bool
    format_ok: bool
    """Whether the answer stands where the output instruction wants it."""
    parsed: str | None
    """The answer read out of the reply, in canonical spelling."""
    reason: str
    """`right`, `wrong`, `no answer`, or `undecided`: readable, but not compared within the kind's time and memory."""

    def reward(self, format_share: float) -> float:
        """(1 - f) * correct + f * format_ok, with f = `format_share`."""
        return (1 - format_share) * self.correct + format_share * self.format_ok


class Grader(Component, ABC):
    """One kind of answer: how models are asked for it, and how it is read and compared. Pure and thread-safe.

    A kind of your own defines `instruction`, `parse` and `parse_anywhere`; `read`, `same` and `write` are worth having.
    """

    open: ClassVar[bool] = False
    """Whether a data set whose questions have options may also hold questions without any."""
    accepts_alternatives: ClassVar[bool] = False
    """Whether an array in the gold column means several right answers."""
    question: ClassVar[str] = ""
    """The current question, set by `for_question`. Not a field, so it is not part of the key."""

    @property
    @abstractmethod
    def instruction(self) -> str:
        """The output instruction shown to every model. It is kept beside the parser so that the two can't disagree."""

    def marked(self, reply: str) -> Sequence[str]:
        """The texts that stand where the instruction wants the answer, in their order; the last one counts."""
        raise NotImplementedError(f"{type(self).__name__} defines neither `parse` nor `marked`")

    def parse(self, reply: str) -> str | None:
        """The canonical answer that stands where the instruction wants it, or None."""
        marked = self.marked(reply)
        return self.read(marked[-1]) if marked else None

    @abstractmethod
    def parse_anywhere(self, reply: str) -> str | None:
        """The canonical answer in whatever format. Used for format-free accuracy only, never for labels or rewards."""

    def read(self, text: str) -> str | None:
        """The canonical answer of a text that holds nothing else, such as a gold cell or an item of a list.

        By default `parse_anywhere`, provided that it takes the whole text.
        """
        answer = self.parse_anywhere(text)
        return answer if answer is not None and fold(answer) == fold(text) else None

    def write(self, answer: str) -> str:
        """A reply in the output format that `parse` reads back as `answer`."""
        raise UserError(
            f"{type(self).__name__} can't write answers in its output format",
            got=answer,
            next_step="define `write(self, answer) -> str` in your answer kind",
        )

    @property
    def answers(self) -> tuple[str, ...]:
        """All possible canonical answers, if there are only a few; otherwise empty."""
        return ()

    def for_question(self, question: str) -> Self:  # noqa: ARG002
        """This grader for one question: some kinds need its options or its tables. The digest stays the same."""
        return self

    def _with_question(self, question: str) -> Self:
        bound = copy.copy(self)
        object.__setattr__(bound, "question", question)
        return bound

    def same(self, first: str, second: str) -> bool:
        """Whether two canonical answers mean the same; tolerances are taken of `second`, the gold answer."""
        return first == second

    def compare(self, parsed: str, answer: str) -> str:
        """The reason of a grade: `right`, `wrong` or `undecided`."""
        return RIGHT if self.same(parsed, answer) else WRONG

    def compare_many(self, pairs: Sequence[tuple[str, str]]) -> list[str]:
        """`compare` for many pairs at once, for kinds that compare in another process."""
        return [self.compare(parsed, answer) for parsed, answer in pairs]

    def grade(self, reply: str, answer: str) -> Grade:
        """Compare a reply with the right answer."""
        return self.grade_many([(reply, answer)])[0]

    def grade_many(self, pairs: Sequence[tuple[str, str]]) -> list[Grade]:
        """The grades of many (reply, right answer)."""
        parsed = [self.parse(reply) for reply, _ in pairs]
        if not any(answer.startswith(ANY_OF) for _, answer in pairs):
            readable = [(text, answer) for text, (_, answer) in zip(parsed, pairs, strict=True) if text is not None]
            verdicts = iter(self.compare_many(readable))
            return [_grade(text, NO_ANSWER if text is None else next(verdicts)) for text in parsed]
        answers = [(text, alternatives(answer)) for text, (_, answer) in zip(parsed, pairs, strict=True)]
        flat = [(text, answer) for text, right in answers if text is not None for answer in right]
        reasons = iter(self.compare_many(flat))
        grades = []
        for text, right in answers:
            found = {next(reasons) for _ in right} if text is not None else {NO_ANSWER}
            reason = next(one for one in (RIGHT, UNDECIDED, WRONG, NO_ANSWER) if one in found)
            grades.append(_grade(text, reason))
        return grades

    def correct_anywhere(self, reply: str, answer: str) -> bool:
        """Whether the reply holds the right answer in any format: accuracy without learning the format."""
        parsed = self.parse_anywhere(reply)
        return parsed is not None and any(self.same(parsed, one) for one in alternatives(answer))

    def gold(self, text: str) -> str | None:
        """The canonical answer of a gold text: a solution in the output format, or the bare answer.

        Strict, unlike `parse_anywhere`: None for anything longer, and for a solution that states different answers.
        """
        answer = self.parse(text)
        if answer is None:
            return self.read(text)
        try:
            others = {self.read(other) for other in self.marked(text)} - {None, answer}
        except NotImplementedError:
            return answer
        return None if any(not self.same(str(other), answer) for other in others) else answer

    def gold_cell(self, value: Any) -> str | None:
        """The canonical answer of a gold cell as it stands in the data: text, number or array of alternatives.

        None where the cell can't be read; also for an array if this kind has one right answer only.
        """
        if isinstance(value, Mapping):
            return None
        if isinstance(value, (list, tuple)):
            if len(value) > 1 and not self.accepts_alternatives:
                return None
            return any_of([self.gold_cell(item) for item in value])
        return self.gold(cell_text(value))

    def allowed(self) -> Collection[str]:
        """The answers that the current question offers; empty if it offers none to choose from."""
        return ()

    def reward(self, reply: str, answer: str, format_share: float) -> float:
        """(1 - f) * correct + f * format_ok, with f = `format_share`."""
        return self.grade(reply, answer).reward(format_share)

    def digest(self) -> str:
        """Stored with every number: results of different graders are not compared."""
        return digest(self.key_fields())


def _grade(parsed: str | None, reason: str) -> Grade:
    return Grade(correct=reason == RIGHT, format_ok=parsed is not None, parsed=parsed, reason=reason)


def cell_text(value: Any) -> str:
    """A single cell as text; nothing for a missing one."""
    return "" if value is None else clean(value) if isinstance(value, str) and not value.isascii() else str(value)


def any_of(answers: Sequence[str | None]) -> str | None:
    """The canonical answer of several right ones. None if there are none, or if one of them is None."""
    unique = list(dict.fromkeys(answer for answer in answers if answer is not None))
    if not answers or None in answers:
        return None
    return unique[0] if len(unique) == 1 else json.dumps({"any of": unique}, ensure_ascii=False)


def alternatives(answer: str) -> list[str]:
    """All right answers of a canonical answer: several for one made by `any_of`, otherwise itself."""
    return list(json.loads(answer)["any of"]) if answer.startswith(ANY_OF) else [answer]


def first_alternative(answer: str) -> str:
    """The first right answer: the one that is written where only one can be."""
    return alternatives(answer)[0]
