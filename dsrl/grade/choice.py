"""One option letter inside an answer tag."""

import re

from pydantic import Field

from dsrl.grade.base import Grader
from dsrl.part import part

TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
STATED = re.compile(r"(?:answer|option|choice)\s*(?:is|:)?\s*\**\(?([A-Z])\b(?!\s+[a-z])", re.IGNORECASE)


@part
class Choice(Grader):
    """Multiple choice: `<answer>B</answer>`, also `(B)`, `B.` or `B: text` inside the tag."""

    options: str = Field(default="ABCD", pattern=r"^[A-Z]{2,26}$")
    """The letters to choose from."""

    @property
    def instruction(self) -> str:
        letters = ", ".join(self.options[:-1]) + f" or {self.options[-1]}"
        return f"Think step by step, then give the letter of the right option ({letters}) as <answer>letter</answer>."

    def parse(self, reply: str) -> str | None:
        tags = TAG.findall(reply)
        return self._letter(tags[-1]) if tags else None

    def parse_anywhere(self, reply: str) -> str | None:
        parsed = self.parse(reply)
        if parsed is not None:
            return parsed
        stated = [letter.upper() for letter in STATED.findall(reply) if letter.upper() in self.options]
        return stated[-1] if stated else self._letter(reply)

    def _letter(self, text: str) -> str | None:
        match = re.fullmatch(rf"\s*\(?([{self.options}])(?:\)|[.:)]\s.*|[.:])?\s*", text, re.DOTALL | re.IGNORECASE)
        return match.group(1).upper() if match else None
