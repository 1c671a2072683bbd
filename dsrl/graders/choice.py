"""One option letter inside an answer tag."""

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Self

from pydantic import Field, field_validator

from dsrl.core.component import component
from dsrl.core.digest import normalised
from dsrl.core.errors import UserError
from dsrl.graders.tagged import TRIM, Tagged

CUE = r"(?i:answer|option|choice)\s{0,3}(?i:is|:)?\s{0,3}\**"
SENTENCE = r"(?!\s+(?!because\b|since\b|as\b|and\b)[a-z])"
"""An `A` that goes on in small letters is an article, unless it is a reason that follows."""
STATED = re.compile(rf"{CUE}(?:\(([A-Za-z])\)|([A-Z])\b{SENTENCE}|([a-z])(?=\W*$))", re.MULTILINE)
LETTER = re.compile(r"(?:(?:option|choice|answer)\s{0,3}:?\s{0,3})?\(?([A-Z])(?:[).:]+(?:\s+(.*))?)?", re.DOTALL | re.I)
OPTION = re.compile(r"(?:^|(?<=\s))\(?([A-Z])([).:])\s+", re.MULTILINE)
OPTION_LINE = re.compile(r"^[ \t]{0,8}\(?([A-Z])([).:])[ \t]+", re.MULTILINE)
MARKS = ":)."
MAX_TEXT = 10_000


@component("graders.choice")
class Choice(Tagged):
    """Multiple choice: `<answer>B</answer>`, also `(B)`, `B.`, `B: text` or the option's own text inside the tag."""

    version = 2
    options: str = Field(default="ABCD", pattern=r"^[A-Z]{2,26}$")
    """The letters to choose from."""

    @field_validator("options")
    @classmethod
    def _each_once(cls, options: str) -> str:
        if twice := sorted({letter for letter in options if options.count(letter) > 1}):
            raise UserError(
                f"answer.options: letter {', '.join(twice)} stands there more than once",
                got=options,
                next_step="give each letter once, such as answer.options=ABCD",
            )
        return options

    @property
    def answers(self) -> tuple[str, ...]:
        return tuple(self.options)

    @property
    def wanted(self) -> str:
        letters = ", ".join(self.options[:-1]) + f" or {self.options[-1]}"
        return f"the letter of the right option ({letters})"

    @property
    def placeholder(self) -> str:
        return "letter"

    def for_question(self, question: str) -> Self:
        return self._with_question(question)

    def allowed(self) -> Collection[str]:
        return option_texts(self.question, self.options)

    def read(self, text: str) -> str | None:
        bare = text.strip(TRIM)
        if len(bare) > MAX_TEXT:
            return None
        texts = option_texts(self.question, self.options)
        match = LETTER.fullmatch(bare)
        letter = match.group(1).upper() if match else ""
        if match is None or letter not in self.options:
            return self._by_text(bare, texts)
        beside = match.group(2) or ""
        return None if self._another(letter, beside, texts) else letter

    def parse_anywhere(self, reply: str) -> str | None:
        parsed = self.parse(reply)
        if parsed is not None:
            return parsed
        letters = [next(filter(None, found.groups())).upper() for found in STATED.finditer(reply)]
        stated = [letter for letter in letters if letter in self.options]
        return stated[-1] if stated else self.read(reply)

    def _by_text(self, text: str, texts: dict[str, str]) -> str | None:
        """The letter of the only option that reads like this."""
        named = [letter for letter, option in texts.items() if option == _plain(text)]
        return named[0] if len(named) == 1 else None

    def _another(self, letter: str, beside: str, texts: dict[str, str]) -> bool:
        """Whether the text beside a letter is that of another option, or names a second letter."""
        if any(found.group(1) in self.options for found in OPTION.finditer(beside)):
            return True
        plain = _plain(beside)
        return plain in texts.values() and texts.get(letter) != plain


@lru_cache(maxsize=4096)
def option_texts(question: str, letters: str) -> dict[str, str]:
    """Letter -> text of the options that a question lists in order (`A: ...`, `(A) ...`), up to a blank line."""
    runs = [in_order(pattern, mark, question, letters) for pattern in (OPTION_LINE, OPTION) for mark in MARKS]
    best = max(runs, key=len)
    ends = [match.start() for match in best[1:]] + [len(question)]
    pieces = {match.group(1): question[match.end() : end] for match, end in zip(best, ends, strict=False)}
    texts = {letter: _plain(piece.partition("\n\n")[0]) for letter, piece in pieces.items()}
    return {letter: text for letter, text in texts.items() if text}


def in_order(pattern: re.Pattern[str], mark: str, question: str, letters: str, start: int = 0) -> list[re.Match[str]]:
    """The longest run of options with this mark from the first letter on; of equals, the last."""
    best: list[re.Match[str]] = []
    found: list[re.Match[str]] = []
    for match in pattern.finditer(question, start):
        if match[2] != mark:
            continue
        if match[1] == letters[0]:
            found = [match]
        elif found and match[1] == letters[len(found) :][:1]:
            found = [*found, match]
        best = found if len(found) >= max(2, len(best)) else best
    return best


def _plain(text: str) -> str:
    return normalised(text).strip(TRIM)
