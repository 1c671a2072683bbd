"""Answers located by the user's own pattern."""

from typing import Any

from pydantic import Field, model_validator

from dsrl.core.component import component
from dsrl.core.digest import normalised
from dsrl.core.errors import UserError
from dsrl.graders.base import Grader

PLACE = "{answer}"


@component("graders.regex")
class Regex(Grader):
    """The last match of `pattern`; its group (the first, or the whole match) is the answer, compared as text."""

    pattern: str = Field(min_length=1)
    """In the syntax of the `regex` package, which is that of `re` and more."""
    form: str
    """How an answer is written, with `{answer}` in its place. It is shown to models and checked against the pattern."""
    example: str = Field(min_length=1)
    """An answer; `pattern` must read it back out of `form`."""
    ignore_case: bool = True
    timeout: float = Field(default=1.0, gt=0)
    """Seconds for one search; a search that takes longer finds nothing."""

    @model_validator(mode="after")
    def _check_example(self) -> "Regex":
        import regex

        if self.form.count(PLACE) != 1:
            raise UserError(f"answer.form must contain {PLACE} exactly once", got=self.form, allowed="Answer: {answer}")
        try:
            self._compiled()
        except regex.error as error:
            raise UserError("answer.pattern is not a regular expression", got=f"{self.pattern} ({error})") from error
        if self.parse(self.write(self.example)) != self._plain(self.example):
            raise UserError(
                "answer.pattern doesn't read the example out of answer.form",
                got=f"{self.parse(self.write(self.example))!r} out of {self.write(self.example)!r}",
                allowed=repr(self.example),
                next_step="change pattern or form until they agree",
            )
        return self

    @property
    def instruction(self) -> str:
        return f"Think step by step, then end with: {self.form.replace(PLACE, '...')}"

    def parse(self, reply: str) -> str | None:
        found = None
        try:
            for match in self._compiled().finditer(reply, timeout=self.timeout):
                found = match
        except TimeoutError:
            return None
        text = found.group(1 if found.re.groups else 0) if found else None
        plain = self._plain(text) if text else None
        return None if plain == "..." else plain or None

    def parse_anywhere(self, reply: str) -> str | None:
        return self.parse(reply)

    def read(self, text: str) -> str | None:
        return self.parse(self.write(text))

    def write(self, answer: str) -> str:
        return self.form.replace(PLACE, answer)

    def _compiled(self) -> Any:
        import regex

        return regex.compile(self.pattern, regex.IGNORECASE if self.ignore_case else 0)

    def _plain(self, text: str) -> str:
        return normalised(text) if self.ignore_case else " ".join(text.split())
