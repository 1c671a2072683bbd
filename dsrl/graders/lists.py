"""Several answers of one kind inside an answer tag: in order (`List`) or not (`Set`)."""

import json
from abc import abstractmethod

from pydantic import Field

from dsrl.core.component import component
from dsrl.core.errors import UserError
from dsrl.graders.base import Grader
from dsrl.graders.tagged import Tagged
from dsrl.graders.text import Text

BRACKETS = {"[": "]", "{": "}", "(": ")"}


class Items(Tagged):
    """What `List` and `Set` share. The canonical answer is a JSON array of the items' canonical answers."""

    item: Grader
    separator: str
    max_items: int

    @abstractmethod
    def same_items(self, first: list[str], second: list[str]) -> bool:
        """Whether two rows of items are the same answer."""

    def read(self, text: str) -> str | None:
        pieces = [piece.strip() for piece in _unwrapped(text.strip()).split(self.separator, self.max_items)]
        items = [self.item.read(piece) for piece in pieces]
        known = [item for item in items if item is not None]
        return json.dumps(known, ensure_ascii=False) if len(known) == len(items) <= self.max_items else None

    def gold(self, text: str) -> str | None:
        items = _array(text)
        return super().gold(text if items is None else self.separator.join(items))

    def write(self, answer: str) -> str:
        items = [_bare(self.item, item) for item in _items(answer)]
        if any(self.separator in item for item in items):
            raise UserError("an item holds the separator", got=answer, next_step="give another answer.separator")
        return super().write(f"{self.separator} ".join(items))

    def same(self, first: str, second: str) -> bool:
        return self.same_items(_items(first), _items(second))


@component("graders.list")
class List(Items):
    """Several answers of one kind, in order: `<answer>2; 3; 5</answer>`."""

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
    """Several answers of one kind in any order: `<answer>5; 2; 3</answer>`. Repeats count once."""

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


def _unwrapped(text: str) -> str:
    return text[1:-1] if len(text) > 1 and BRACKETS.get(text[0]) == text[-1] else text


def _bare(item: Grader, answer: str) -> str:
    """An item as it is written inside a list: its canonical spelling must read back."""
    if item.read(answer) is None:
        raise UserError(f"{type(item).__name__} can't be an item: its answers don't read back bare", got=answer)
    return answer


def _items(answer: str) -> list[str]:
    """The items of a canonical answer; any other text is an answer of one item."""
    items = _array(answer)
    return [answer] if items is None else items


def _array(text: str) -> list[str] | None:
    if not text.lstrip().startswith("["):
        return None
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return [item if isinstance(item, str) else json.dumps(item, ensure_ascii=False) for item in items]
