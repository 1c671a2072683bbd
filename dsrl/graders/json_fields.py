"""A JSON object inside an answer tag, each field an answer of its own kind."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from dsrl.core.component import component
from dsrl.core.errors import UserError
from dsrl.graders.base import Grader
from dsrl.graders.lists import unfenced
from dsrl.graders.normalize import SURROGATE
from dsrl.graders.tagged import Tagged

MAX_TEXT = 100_000


@component("graders.json")
class Json(Tagged):
    """Structured output: an object with exactly these fields. Right if every field is."""

    version = 2
    fields: dict[str, Grader] = Field(min_length=1)
    """Name -> answer kind."""

    @property
    def wanted(self) -> str:
        return f"a JSON object with the fields {', '.join(self.fields)}"

    @property
    def placeholder(self) -> str:
        return "{...}"

    def read(self, text: str) -> str | None:
        found = _object(unfenced(text))
        if found is None or found.keys() != self.fields.keys():
            return None
        read = {name: kind.read(_text(found[name])) for name, kind in self.fields.items()}
        return None if None in read.values() else SURROGATE.sub("\ufffd", json.dumps(read, ensure_ascii=False))

    def gold_cell(self, value: Any) -> str | None:
        return super().gold_cell(json.dumps(value) if isinstance(value, Mapping) else value)

    def parse_anywhere(self, reply: str) -> str | None:
        parsed = self.parse(reply)
        start, end = reply.rfind("\n{"), reply.rfind("}")
        return parsed if parsed is not None else self.read(reply[start + 1 : end + 1])

    def same(self, first: str, second: str) -> bool:
        left, right = _object(first), _object(second)
        if left is None or right is None or not left.keys() == right.keys() == self.fields.keys():
            return first == second
        return all(kind.same(_text(left[name]), _text(right[name])) for name, kind in self.fields.items())

    def write(self, answer: str) -> str:
        if self.read(answer) is None:
            raise UserError("the answer is not a JSON object with these fields", got=answer, allowed=self.fields)
        return super().write(answer)


def _text(value: Any) -> str:
    """Strings as they are (numbers, too: they are read as written), everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _object(text: str) -> dict[str, Any] | None:
    """The object of a text; None for anything else, and for one that gives a field twice."""
    if len(text) > MAX_TEXT:
        return None
    try:
        value = json.loads(text, parse_int=str, parse_float=str, parse_constant=str, object_pairs_hook=_each_once)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a field is given twice")
    return dict(pairs)
