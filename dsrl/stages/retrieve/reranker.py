"""Reranks the first hits of a query by cosine similarity, with a local sentence-transformers model."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dsrl.core.errors import UserError
from dsrl.core.resources import resource
from dsrl.stages.retrieve.searcher import Searcher, SearchHit


def check_model(model: str | None) -> Path:
    """Folder of the model. Raises `UserError` if it or the package sentence-transformers is missing."""
    if find_spec("sentence_transformers") is None:
        raise UserError(
            "retriever.rerank=dense needs the package sentence-transformers", next_step="pip install 'dsrl[dense]'"
        )
    if model is None:
        raise UserError("retriever.rerank=dense needs a model", next_step="set retriever.rerank_model=FOLDER")
    folder = resource(model)
    if not (folder / "config.json").is_file():
        raise UserError(
            "retriever.rerank_model: no sentence-transformers model in this folder",
            got=str(folder),
            next_step="set retriever.rerank_model to the folder of a local model",
        )
    return folder


class RerankingSearcher:
    """Reorders the first `top` hits of another searcher. Scores stay those of BM25."""

    def __init__(self, searcher: Searcher, model: str | None, top: int) -> None:
        from sentence_transformers import SentenceTransformer

        self._searcher, self._top = searcher, top
        self._model: Any = SentenceTransformer(str(check_model(model)), local_files_only=True)
        self.num_documents = searcher.num_documents

    def search(self, query: str, limit: int) -> list[SearchHit]:
        return self.search_many([query], limit)[0]

    def search_many(self, queries: Sequence[str], limit: int) -> list[list[SearchHit]]:
        # always at least `top` hits, so that the order doesn't depend on the limit
        found = self._searcher.search_many(queries, max(limit, self._top))
        return [self._rerank(query, hits)[:limit] for query, hits in zip(queries, found, strict=True)]

    def close(self) -> None:
        self._searcher.close()

    def _rerank(self, query: str, hits: list[SearchHit]) -> list[SearchHit]:
        top = hits[: self._top]
        if not top:
            return []
        vectors = self._model.encode([query, *(hit.text for hit in top)], normalize_embeddings=True)
        similarity = (vectors[1:] @ vectors[0]).tolist()
        order = sorted(range(len(top)), key=lambda place: (-similarity[place], place))
        return [top[place] for place in order] + hits[self._top :]
