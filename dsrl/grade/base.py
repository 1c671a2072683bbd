"""What every answer kind does. Subclasses fill in four small functions."""

from abc import ABC, abstractmethod

from dsrl.digest import digest
from dsrl.part import Part, record


@record
class Grade:
    """The verdict on one reply."""

    correct: bool
    format_ok: bool
    """Whether the answer stood where the output instruction wants it."""
    parsed: str | None
    """The answer read out of the reply, in canonical spelling."""
    reason: str
    """`right`, `wrong` or `no answer`."""


class Grader(Part, ABC):
    """One kind of answer: how it is asked for, read, compared and graded. Pure and safe in threads."""

    @property
    @abstractmethod
    def instruction(self) -> str:
        """The output instruction shown to every model, so that prompt and parser can't disagree."""

    @abstractmethod
    def parse(self, reply: str) -> str | None:
        """The canonical answer, read where the instruction wants it; None if it isn't there."""

    @abstractmethod
    def parse_anywhere(self, reply: str) -> str | None:
        """The canonical answer however it is written: for format-free accuracy and for gold columns."""

    def same(self, first: str, second: str) -> bool:
        """Whether two canonical answers mean the same."""
        return first == second

    def grade(self, reply: str, answer: str) -> Grade:
        """Compare a reply with the right answer."""
        parsed = self.parse(reply)
        if parsed is None:
            return Grade(correct=False, format_ok=False, parsed=None, reason="no answer")
        correct = self.same(parsed, answer)
        return Grade(correct=correct, format_ok=True, parsed=parsed, reason="right" if correct else "wrong")

    def correct_anywhere(self, reply: str, answer: str) -> bool:
        """Right answer in any format: what remains when learning the format is taken away."""
        parsed = self.parse_anywhere(reply)
        return parsed is not None and self.same(parsed, answer)

    def gold(self, text: str) -> str | None:
        """The canonical answer of a gold column, which may hold a whole solution or the bare answer."""
        parsed = self.parse(text)
        return self.parse_anywhere(text) if parsed is None else parsed

    def reward(self, reply: str, answer: str, format_share: float) -> float:
        """(1 - f) * correct + f * format_ok, with f = `format_share`."""
        grade = self.grade(reply, answer)
        return (1 - format_share) * grade.correct + format_share * grade.format_ok

    def digest(self) -> str:
        """Goes with every number; numbers of different graders aren't compared."""
        return digest(self.identity())
