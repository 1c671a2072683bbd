"""Passages that hold a piece of the test set: samples written from them would give it away."""

from collections.abc import Sequence

from dsrl.data.overlap.index import OverlapIndex, rejection_reason
from dsrl.data.sample import Passage


class TestOverlap:
    """Says which rule a passage breaks. Names and numbers count: a passage is no question."""

    __test__ = False  # it is no test, whatever its name

    def __init__(self, items: Sequence[str], ngrams: Sequence[int] = (13, 8)) -> None:
        self._items = OverlapIndex(items, ngrams, renamed=None, reworded=None)

    def __call__(self, passage: Passage) -> str | None:
        """Why the passage can't be used; None where it can."""
        surest = min(self._items.find_overlaps([passage.text]), key=lambda hit: hit.rank, default=None)
        if surest is None:
            return None
        return rejection_reason("whole" if surest.kind == "same" else surest.kind, surest.size)
