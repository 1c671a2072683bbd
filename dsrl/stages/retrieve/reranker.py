"""The first hits of a query in another order: by the likeness of meanings, as a local model sees it."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsrl.core.errors import UserError
from dsrl.core.resources import resource
from dsrl.stages.retrieve.index import Hit

if TYPE_CHECKING:
    from dsrl.stages.retrieve.retriever import Searcher


def check(model: str | None) -> Path:
    """The model's folder. Raises `UserError` where it, or the package that runs it, isn't there."""
    if find_spec("sentence_transformers") is None:
        raise UserError(
            "retriever.rerank=dense needs the package sentence-transformers", next_step="pip install 'dsrl[dense]'"
        )
    if model is None:
        raise UserError("retriever.rerank=dense needs a model", next_step="give retriever.rerank_model=FOLDER")
    folder = resource(model)
    if not (folder / "config.json").is_file():
        raise UserError(
            "retriever.rerank_model: no sentence-transformers model there",
            got=str(folder),
            next_step="give the folder of one that is on this machine",
        )
    return folder


class Reranked:
    """A searcher whose first `top` hits of every query go by cosine likeness; scores stay those of BM25."""

    def __init__(self, searcher: "Searcher", model: str | None, top: int) -> None:
        from sentence_transformers import SentenceTransformer

        self._searcher, self._top = searcher, top
        self._model: Any = SentenceTransformer(str(check(model)), local_files_only=True)
        self.num_documents = searcher.num_documents

    def search(self, query: str, limit: int) -> list[Hit]:
        """The best hits; which of them are put in another order doesn't depend on the limit."""
        return self.search_many([query], limit)[0]

    def search_many(self, queries: Sequence[str], limit: int) -> list[list[Hit]]:
        """The hits of each query, in its place."""
        found = self._searcher.search_many(queries, max(limit, self._top))
        return [self._ordered(query, hits)[:limit] for query, hits in zip(queries, found, strict=True)]

    def close(self) -> None:
        """Close the searcher beneath."""
        self._searcher.close()

    def _ordered(self, query: str, hits: list[Hit]) -> list[Hit]:
        first = hits[: self._top]
        if not first:
            return []
        vectors = self._model.encode([query, *(hit.text for hit in first)], normalize_embeddings=True)
        likeness = (vectors[1:] @ vectors[0]).tolist()
        order = sorted(range(len(first)), key=lambda place: (-likeness[place], place))
        return [first[place] for place in order] + hits[self._top :]
