"""Several answers of one kind inside an answer tag: in order (`List`) or not (`Set`)."""

import json
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from dsrl.core.component import component
from dsrl.core.errors import UserError
from dsrl.graders.base import Grader
from dsrl.graders.tagged import Tagged
from dsrl.graders.text import Text

MAX_TEXT = 100_000
BRACKETS = {"[": "]", "{": "}", "(": ")"}


class Items(Tagged):
    """Base of `List` and `Set`. The canonical answer is a JSON array of the items' canonical answers."""

    item: Grader
    separator: str
    max_items: int

    @abstractmethod
    def same_items(self, first: list[str], second: list[str]) -> bool:
        """Whether two lists of canonical items are the same answer."""

    def read(self, text: str) -> str | None:
        text = unfenced(text)
        if (array := json_array(text)) is not None and (answer := self._canonical(array)) is not None:
            return answer
        return self._canonical([piece.strip() for piece in _unwrap(text).split(self.separator, self.max_items)])

    def gold_cell(self, value: Any) -> str | None:
        if isinstance(value, (list, tuple)):
            return self._canonical(value)
        return super().gold_cell(value)

    def _canonical(self, items: Sequence[Any]) -> str | None:
        """The JSON array of the items' canonical answers; None if one of them can't be read, or for too many."""
        if not 0 < len(items) <= self.max_items:
            return None
        read = [self.item.read(item) if isinstance(item, str) else self.item.gold_cell(item) for item in items]
        return None if None in read else json.dumps(read, ensure_ascii=False)

    def write(self, answer: str) -> str:
        items = [_bare(self.item, item) for item in _items(answer)]
        if any(self.separator in item for item in items):
            return super().write(json.dumps(items, ensure_ascii=False))
        return super().write(f"{self.separator} ".join(items))

    def same(self, first: str, second: str) -> bool:
        return self.same_items(_items(first), _items(second))


@component("graders.list")
class List(Items):
    """Several answers of one kind, in order: `<answer>2; 3; 5</answer>` or a JSON array."""

    version = 2
    item: Grader = Field(default_factory=Text)
    """The kind of each item."""
    separator: str = Field(default=";", min_length=1)
    max_items: int = Field(default=100, ge=1)

    @property
    def wanted(self) -> str:
        return f"all answers in their order, with {self.separator} between them,"

    def same_items(self, first: list[str], second: list[str]) -> bool:
        return len(first) == len(second) and all(map(self.item.same, first, second))


@component("graders.set")
class Set(Items):
    """Several answers of one kind in any order: `<answer>5; 2; 3</answer>` or a JSON array. Repeats count once."""

    version = 2
    item: Grader = Field(default_factory=Text)
    """The kind of each item."""
    separator: str = Field(default=";", min_length=1)
    max_items: int = Field(default=100, ge=1)

    @property
    def wanted(self) -> str:
        return f"all answers in any order, with {self.separator} between them,"

    def same_items(self, first: list[str], second: list[str]) -> bool:
        return self._within(first, second) and self._within(second, first)

    def _within(self, some: list[str], others: list[str]) -> bool:
        return all(item in others or any(self.item.same(item, other) for other in others) for item in some)


def _unwrap(text: str) -> str:
    return text[1:-1] if len(text) > 1 and BRACKETS.get(text[0]) == text[-1] else text


def _bare(item: Grader, answer: str) -> str:
    """An item as it is written inside a list: its canonical spelling must read back."""
    if item.read(answer) is None:
        raise UserError(f"{type(item).__name__} can't be an item: its answers don't read back bare", got=answer)
    return answer


def _items(answer: str) -> list[str]:
    """The items of a canonical answer; any other text is an answer of one item."""
    items = json_array(answer)
    return [answer] if items is None else [item if isinstance(item, str) else json.dumps(item) for item in items]


def json_array(text: str) -> list[Any] | None:
    """The items of a JSON array, with numbers as they are spelled; None for any other text."""
    if not text.lstrip().startswith("[") or len(text) > MAX_TEXT:
        return None
    try:
        items = json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        return None
    return items if isinstance(items, list) else None


def unfenced(text: str) -> str:
    """JSON without the fence that models put around it."""
    text = text.strip()
    return text.removeprefix("```json").removeprefix("```").removesuffix("```").strip() if text[:3] == "```" else text
