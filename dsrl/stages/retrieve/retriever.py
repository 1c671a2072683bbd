"""Where passages are searched: `retriever=embedded|elasticsearch|none`. A retriever opens a searcher; that answers."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from pydantic import Field

from dsrl.core.component import Component, Many, component
from dsrl.core.digest import folder_digest
from dsrl.core.errors import UserError
from dsrl.core.resources import resource
from dsrl.pipeline.progress.progress import Progress
from dsrl.stages.retrieve import reranker
from dsrl.stages.retrieve.corpus import Corpus, find_corpus
from dsrl.stages.retrieve.index import Hit
from dsrl.stages.retrieve.index_build import build_index, open_index
from dsrl.stages.retrieve.ingest.hub import Hub
from dsrl.stages.retrieve.ingest.options import Ingest
from dsrl.stages.retrieve.ingest.records import IngestReport

LOOKED_AT = 50
"""Documents of a corpus whose length is taken for typical."""


class Searcher(Protocol):
    """Answers queries about an index that is open."""

    num_documents: int
    """Pieces that are searched."""

    def search(self, query: str, limit: int) -> list[Hit]:
        """The best hits, best first. Any text is a query; a shorter limit gives the first hits of a longer one."""

    def search_many(self, queries: Sequence[str], limit: int) -> list[list[Hit]]:
        """The hits of each query, in its place."""

    def close(self) -> None:
        """Nothing can be asked any more."""


@component(None)
class Retriever(Component, ABC):
    """A description of what is searched."""

    excluded_from_key: ClassVar[frozenset[str]] = frozenset({"keywords"})

    keywords: Many[str] = ()
    """Searched instead of the teacher's; the `retrieve` stage takes them from here."""

    def check(self) -> None:
        """Cheap tests before any work starts; raises `UserError`."""

    @abstractmethod
    def open(self, root: Path, progress: Progress) -> Searcher | None:
        """A searcher, its index kept under `root`; None where there is nothing to search."""

    def index(self, root: Path, progress: Progress) -> IngestReport:  # noqa: ARG002
        """Have the index made, or added to, if it isn't there whole; says how its corpora were read."""
        raise UserError(f"{type(self).__name__} has no index", next_step="give retriever=embedded")

    def ordered(self, searcher: Searcher) -> Searcher:
        """The searcher, with its hits in the order that is wanted."""
        return searcher

    def typical_characters(self, most: int) -> int | None:
        """Length of a passage before any is searched, for a forecast; None where there will be none."""
        return most


@component(None)
class CorpusRetriever(Retriever):
    """A retriever that makes its index of corpora by itself."""

    corpora: Many[str] = Field(min_length=1)
    """Names (`corpora/<name>.json`), manifests elsewhere, files, folders, archives, or `hf:owner/name`."""
    ingest: Ingest = Ingest()
    rerank: Literal["dense"] | None = None
    """Have the first hits put in order by a local sentence-transformers model."""
    rerank_model: str | None = None
    """Folder of that model."""
    rerank_top: int = Field(default=50, gt=1)
    """Hits of a query that are put in another order."""

    def key_fields(self) -> dict[str, Any]:
        """Corpora by content, wherever they lie, and so the model."""
        corpora = [corpus.key_fields() for corpus in self._found()]
        model = folder_digest(resource(self.rerank_model), ("*", "*/*")) if self.rerank_model else None
        return {**super().key_fields(), "corpora": corpora, "rerank_model": model}

    def check(self) -> None:
        if self.rerank is not None:
            reranker.check(self.rerank_model)
        for corpus in self._found():
            corpus.check()
            corpus.try_rows(self.ingest)

    def ordered(self, searcher: Searcher) -> Searcher:
        return reranker.Reranked(searcher, self.rerank_model, self.rerank_top) if self.rerank else searcher

    def typical_characters(self, most: int) -> int:
        """The mean over the first documents of each corpus on this machine."""
        local = [corpus for corpus in self._found() if not isinstance(corpus.place, Hub)]
        firsts = [itertools.islice(corpus.documents(self.ingest), LOOKED_AT) for corpus in local]
        sizes = [min(len(document.text), most) for documents in firsts for document in documents]
        return round(sum(sizes) / len(sizes)) if sizes else most

    def _found(self) -> list[Corpus]:
        found = [find_corpus(given) for given in self.corpora]
        names = [corpus.name for corpus in found]
        if len(set(names)) < len(names):
            raise UserError("retriever.corpora: two corpora have one name", got=", ".join(names))
        return found


@component("retriever.embedded")
class Embedded(CorpusRetriever):
    """BM25 over corpora on this machine, in this process."""

    def open(self, root: Path, progress: Progress) -> Searcher:
        return open_index(root, self._found(), progress, self.ingest)

    def index(self, root: Path, progress: Progress) -> IngestReport:
        return build_index(root, self._found(), progress, self.ingest).report


@component("retriever.none")
class NoRetriever(Retriever):
    """Samples are written from the task definition alone."""

    def typical_characters(self, most: int) -> None:  # noqa: ARG002
        return None

    def open(self, root: Path, progress: Progress) -> None:  # noqa: ARG002
        return None
