r"""Mathematical answers to questions of which some list options: the letter, or the answer itself, in `\boxed{...}`."""

import re
from collections.abc import Collection, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import ClassVar, Self

from pydantic import Field

from dsrl.core.component import component
from dsrl.graders.base import RIGHT, WRONG
from dsrl.graders.choice import MARKS, OPTION, in_order
from dsrl.graders.latex import canonical, number, same_settled, split_unit
from dsrl.graders.math import Math
from dsrl.graders.normalize import fold, unwrap_latex_text

LETTERS = "ABCDEFGHIJ"
LINE = re.compile(r"^[ \t]{0,8}\(?([A-Z])([).:])[ \t]*(?=\S)", re.MULTILINE)
"""An option on a line of its own; some data leave out the space: `A:40`."""
CUE = re.compile(r"\b(?:choices?|options?)\s{0,3}:", re.IGNORECASE)
"""What announces options that stand in a row: `Choices: (A) odd (B) even`."""
LETTER = re.compile(r"[(\[]?([A-Z])(?:[)\]](?:[.:,]?\s*(.*))?|[.:,]+\s*(.*)|\s*)", re.DOTALL)
ALONE = re.compile(r"(?<![\w\\])[A-J](?!\w)")
WORD = re.compile(r"[^\W\d_]{2,}")


@component("graders.mixed")
class Mixed(Math):
    r"""As `Math`, and where the question lists options, the canonical answer is a letter: `\boxed{B}`, `\boxed{(B)}`,
    `\boxed{B. 40}` or the option's own text or value. A letter is never a number."""

    version = 2
    open: ClassVar[bool] = True

    tolerance: float = Field(default=0.0, ge=0)
    """Largest absolute difference at which two plain numbers are still the same."""
    rounded: bool = False
    """A plain number is right if it agrees with all decimals that the right answer has: 1.24 where that is 1.2."""

    @property
    def instruction(self) -> str:
        return (
            "Work step by step, then give the final answer as \\boxed{...}. Where the question has options, it is the "
            "letter of the right one."
        )

    def for_question(self, question: str) -> Self:
        return self._with_question(question)

    def allowed(self) -> Collection[str]:
        return math_options(self.question)

    def read(self, text: str) -> str | None:
        answer = super().read(text)
        options = math_options(self.question)
        return answer if answer is None else self._option(answer, options) if options else bare_letter(answer)

    def compare_many(self, pairs: Sequence[tuple[str, str]]) -> list[str]:
        settled = {pair: self._settle(*pair) for pair in pairs}
        left = [pair for pair, right in settled.items() if right is None]
        verdicts = {pair: RIGHT if right else WRONG for pair, right in settled.items() if right is not None}
        verdicts |= dict(zip(left, super().compare_many(left), strict=True))
        return [verdicts[pair] for pair in pairs]

    def _option(self, answer: str, options: dict[str, str]) -> str:
        """The letter that an answer means; the answer itself if it means none of the options."""
        found = LETTER.fullmatch(unwrap_latex_text(answer).strip())
        if found is None or found[1] not in options:
            return _named_option(answer, options) or answer
        beside = found[2] or found[3] or ""
        return answer if _names_another(beside, found[1], options) else found[1]

    def _settle(self, parsed: str, answer: str) -> bool | None:
        """Whether they are the same, where letters, words and tolerances decide; otherwise None."""
        if parsed == answer or _is_letter(parsed) or _is_letter(answer):
            options = math_options(self.question)
            return parsed == answer or (parsed in options and options[parsed] == options.get(answer))
        if WORD.fullmatch(parsed) and WORD.fullmatch(answer):
            return parsed.lower() == answer.lower()
        (near, unit), (right, wanted) = split_unit(parsed), split_unit(answer)
        first, second = number(near), number(right)
        if first is None or second is None:
            return None
        if unit and wanted and unit != wanted:
            return False
        return abs(first - second) <= self._allowed_difference(right) or None

    def _allowed_difference(self, right: str) -> Fraction:
        decimals = len(right.partition(".")[2]) if self.rounded else 0
        half = Fraction(1, 2 * 10**decimals) if decimals else Fraction(0)
        return max(Fraction(str(self.tolerance)), half)


def bare_letter(answer: str) -> str:
    """`B` for `(B)`, `B.` and `\\text{B}`; any other answer as it stands."""
    found = LETTER.fullmatch(unwrap_latex_text(answer).strip())
    return found[1] if found and not (found[2] or found[3]) else answer


@lru_cache(maxsize=4096)
def math_options(question: str) -> dict[str, str]:
    """Letter -> canonical text of the options of a question: on lines of their own, or in a row after a cue."""
    runs = [in_order(LINE, mark, question, LETTERS) for mark in MARKS]
    if cue := CUE.search(question):
        runs += [in_order(OPTION, mark, question, LETTERS, cue.end()) for mark in MARKS]
    best = max(runs, key=len)
    ends = [match.start() for match in best[1:]] + [len(question)]
    pieces = {match[1]: question[match.end() : end] for match, end in zip(best, ends, strict=False)}
    return {letter: canonical(piece.partition("\n\n")[0]).rstrip(";, ") for letter, piece in pieces.items()}


def _names_another(beside: str, letter: str, options: dict[str, str]) -> bool:
    """Whether the text beside a letter is that of another option, or names a second letter."""
    if not beside or _alike(beside, options[letter]):
        return False
    return _named_option(beside, options) is not None or any(found in options for found in ALONE.findall(beside))


def _named_option(answer: str, options: dict[str, str]) -> str | None:
    """The first option that reads like this, or has this value."""
    return next((letter for letter, text in options.items() if _alike(answer, text)), None)


def _alike(answer: str, text: str) -> bool:
    if _spelling(answer) == _spelling(text) or same_settled(answer, text):
        return True
    (near, unit), (right, wanted) = split_unit(answer), split_unit(text)
    return number(near) is not None and number(near) == number(right) and (unit == wanted or not unit)


def _spelling(text: str) -> str:
    return fold(unwrap_latex_text(text)).replace(" ", "").strip("$.")


def _is_letter(answer: str) -> bool:
    return len(answer) == 1 and answer in LETTERS
