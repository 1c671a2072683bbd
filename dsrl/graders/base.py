"""What every answer kind does. Subclasses fill in a few small functions."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import ClassVar, Self

from dsrl.core.component import Component, record
from dsrl.core.digest import digest
from dsrl.core.errors import UserError

RIGHT, WRONG, NO_ANSWER, UNDECIDED = "right", "wrong", "no answer", "undecided"


@record
class Grade:
    """The verdict on one reply."""

    correct: bool
    format_ok: bool
    """Whether the answer stood where the output instruction wants it."""
    parsed: str | None
    """The answer read out of the reply, in canonical spelling."""
    reason: str
    """`right`, `wrong`, `no answer`, or `undecided`: readable, but not compared within the kind's time and memory."""

    def reward(self, format_share: float) -> float:
        """(1 - f) * correct + f * format_ok, with f = `format_share`."""
        return (1 - format_share) * self.correct + format_share * self.format_ok


class Grader(Component, ABC):
    """One kind of answer: how it is asked for, read, compared and graded. Pure and safe in threads."""

    open: ClassVar[bool] = False
    """Whether, of a set in which questions have options, some may have none."""
    question: ClassVar[str] = ""
    """The question at hand, lent by `for_question`; no part of what the kind is."""

    @property
    @abstractmethod
    def instruction(self) -> str:
        """The output instruction shown to every model, so that prompt and parser can't disagree."""

    @abstractmethod
    def parse(self, reply: str) -> str | None:
        """The canonical answer, read where the instruction wants it; None if it isn't there."""

    @abstractmethod
    def parse_anywhere(self, reply: str) -> str | None:
        """The canonical answer however it is written: for format-free accuracy."""

    def read(self, text: str) -> str | None:
        """The canonical answer of a text that holds nothing else, such as a gold column or an item of a list."""
        return self.parse_anywhere(text)

    def write(self, answer: str) -> str:
        """How a right answer is written in the output format: what `parse` reads back as `answer`."""
        raise UserError(
            f"{type(self).__name__} doesn't say how an answer is written",
            got=answer,
            next_step="define `write(self, answer) -> str` in your answer kind",
        )

    @property
    def answers(self) -> tuple[str, ...]:
        """All canonical answers there can be, where they are a few."""
        return ()

    def for_question(self, question: str) -> Self:  # noqa: ARG002
        """This kind for one question: some need its options or its tables. It changes no digest."""
        return self

    def _with_question(self, question: str) -> Self:
        bound = copy.copy(self)
        object.__setattr__(bound, "question", question)
        return bound

    def same(self, first: str, second: str) -> bool:
        """Whether two canonical answers mean the same."""
        return first == second

    def compare(self, parsed: str, answer: str) -> str:
        """The reason of a grade: `right`, `wrong` or `undecided`."""
        return RIGHT if self.same(parsed, answer) else WRONG

    def compare_many(self, pairs: Sequence[tuple[str, str]]) -> list[str]:
        """`compare` for many pairs at once, for kinds whose comparisons cost a trip to another process."""
        return [self.compare(parsed, answer) for parsed, answer in pairs]

    def grade(self, reply: str, answer: str) -> Grade:
        """Compare a reply with the right answer."""
        return self.grade_many([(reply, answer)])[0]

    def grade_many(self, pairs: Sequence[tuple[str, str]]) -> list[Grade]:
        """The grades of many (reply, right answer)."""
        parsed = [self.parse(reply) for reply, _ in pairs]
        readable = [(text, answer) for text, (_, answer) in zip(parsed, pairs, strict=True) if text is not None]
        reasons = iter(self.compare_many(readable))
        return [_grade(text, NO_ANSWER if text is None else next(reasons)) for text in parsed]

    def correct_anywhere(self, reply: str, answer: str) -> bool:
        """Right answer in any format: what remains when learning the format is taken away."""
        parsed = self.parse_anywhere(reply)
        return parsed is not None and self.same(parsed, answer)

    def gold(self, text: str) -> str | None:
        """The canonical answer of a gold column, which may hold a whole solution or the bare answer."""
        for reader in (self.parse, self.read, self.parse_anywhere):
            if (answer := reader(text)) is not None:
                return answer
        return None

    def allowed(self) -> Collection[str]:
        """The answers among which the question lets one choose; empty: it says nothing of that."""
        return ()

    def reward(self, reply: str, answer: str, format_share: float) -> float:
        """(1 - f) * correct + f * format_ok, with f = `format_share`."""
        return self.grade(reply, answer).reward(format_share)

    def digest(self) -> str:
        """Goes with every number; numbers of different graders aren't compared."""
        return digest(self.key_fields())


def _grade(parsed: str | None, reason: str) -> Grade:
    return Grade(correct=reason == RIGHT, format_ok=parsed is not None, parsed=parsed, reason=reason)
