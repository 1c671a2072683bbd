"""Passages that hold a piece of the test set: samples written from them would give it away."""

from collections.abc import Sequence

from dsrl.data.overlap.index import Items
from dsrl.data.overlap.rules import reason
from dsrl.data.sample import Passage


class TestOverlap:
    """Says which rule a passage breaks. Names and numbers count: a passage is no question."""

    __test__ = False  # it is no test, whatever its name

    def __init__(self, items: Sequence[str], ngrams: Sequence[int] = (13, 8)) -> None:
        self._items = Items(items, ngrams, renamed=None, reworded=None)

    def __call__(self, passage: Passage) -> str | None:
        """Why the passage can't be used; None where it can."""
        surest = min(self._items.hits([passage.text]), key=lambda hit: hit.rank, default=None)
        if surest is None:
            return None
        return reason("whole" if surest.kind == "same" else surest.kind, surest.size)
