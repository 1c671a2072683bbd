"""What every search engine offers: a `Searcher` that returns `SearchHit`s."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchHit:
    """A passage found by a query."""

    source: str
    """`<corpus>/<document id>`."""
    text: str
    score: float
    """BM25; 0 or higher."""
    offset: int = 0
    """Position of the text in its document, in characters."""


class Searcher(Protocol):
    """An open index."""

    num_documents: int
    """Number of pieces in the index."""

    def search(self, query: str, limit: int) -> list[SearchHit]:
        """The best hits for any of the query's words, best first; ties in the order of the corpora.

        Queries are never parsed, so any text is one. A shorter limit returns the first hits of a longer one.
        """

    def search_many(self, queries: Sequence[str], limit: int) -> list[list[SearchHit]]:
        """The hits of each query, in the order of the queries."""

    def close(self) -> None:
        """Free files and connections."""
