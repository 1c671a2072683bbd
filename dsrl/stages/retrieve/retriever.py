"""The config group `retriever`: what is searched, and where."""

import itertools
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from dsrl.core.component import Component, Many, component
from dsrl.core.digest import folder_digest
from dsrl.core.errors import UserError
from dsrl.core.resources import resource
from dsrl.pipeline.progress.progress import Progress
from dsrl.stages.retrieve.corpus import Corpus, find_corpus
from dsrl.stages.retrieve.index_build import build_index, open_index
from dsrl.stages.retrieve.ingest.hub import HubDataset
from dsrl.stages.retrieve.ingest.records import Ingest, IngestReport
from dsrl.stages.retrieve.reranker import RerankingSearcher, check_model
from dsrl.stages.retrieve.searcher import Searcher

SAMPLED_DOCUMENTS = 50
"""Documents of a corpus whose mean length is taken for the forecast."""


@component(None)
class Retriever(Component, ABC):
    """A source of passages."""

    excluded_from_key: ClassVar[frozenset[str]] = frozenset({"keywords"})

    keywords: Many[str] = ()
    """Searched instead of the teacher's keywords; passed on to the stage `retrieve` by the config."""

    def check(self) -> None:
        """Raise `UserError` for mistakes that can be found in seconds, before any work starts."""

    @abstractmethod
    def open(self, root: Path, progress: Progress) -> Searcher | None:
        """Open the index under `root`, and build it if needed; None if there is nothing to search."""

    def index(self, root: Path, progress: Progress) -> IngestReport:  # noqa: ARG002
        """Build or extend the index if it is not complete; return how its corpora were read."""
        raise UserError(f"{type(self).__name__} has no index", next_step="set retriever=embedded")

    def rerank_hits(self, searcher: Searcher) -> Searcher:
        """Wrap the searcher with the configured reranker, if any."""
        return searcher

    def mean_chars(self, max_chars: int) -> int | None:
        """Expected characters of a passage, for the forecast; None if there will be no passages."""
        return max_chars


@component(None)
class CorpusRetriever(Retriever):
    """A retriever that builds its own index from corpora."""

    corpora: Many[str] = Field(min_length=1)
    """Names (`corpora/<name>.json`), manifests elsewhere, files, folders, archives, or `hf:owner/name`."""
    ingest: Ingest = Ingest()
    rerank: Literal["dense"] | None = None
    """Reorder the first hits with a local sentence-transformers model."""
    rerank_model: str | None = None
    """Folder of that model."""
    rerank_top: int = Field(default=50, gt=1)
    """Hits of a query that are reordered."""

    def key_fields(self) -> dict[str, Any]:
        """Corpora and reranker by their content, not by their location."""
        corpora = [corpus.key_fields() for corpus in self.find_corpora()]
        model = folder_digest(resource(self.rerank_model), ("*", "*/*")) if self.rerank_model else None
        return {**super().key_fields(), "corpora": corpora, "rerank_model": model}

    def check(self) -> None:
        if self.rerank is not None:
            check_model(self.rerank_model)
        for corpus in self.find_corpora():
            corpus.check()
            corpus.check_first_rows(self.ingest)

    def rerank_hits(self, searcher: Searcher) -> Searcher:
        return RerankingSearcher(searcher, self.rerank_model, self.rerank_top) if self.rerank else searcher

    def mean_chars(self, max_chars: int) -> int:
        """Mean over the first documents of each corpus on this machine."""
        local = [corpus for corpus in self.find_corpora() if not isinstance(corpus.location, HubDataset)]
        samples = [itertools.islice(corpus.documents(self.ingest), SAMPLED_DOCUMENTS) for corpus in local]
        sizes = [min(len(document.text), max_chars) for documents in samples for document in documents]
        return round(sum(sizes) / len(sizes)) if sizes else max_chars

    def find_corpora(self) -> list[Corpus]:
        """Raises `UserError` for unknown corpora and for two of the same name."""
        corpora = [find_corpus(given) for given in self.corpora]
        names = [corpus.name for corpus in corpora]
        if len(set(names)) < len(names):
            raise UserError(
                "retriever.corpora: two corpora have the same name",
                got=", ".join(names),
                next_step="rename one of the files or manifests",
            )
        return corpora


@component("retriever.embedded")
class Embedded(CorpusRetriever):
    """BM25 in this process, over an index in the store."""

    def open(self, root: Path, progress: Progress) -> Searcher:
        return open_index(root, self.find_corpora(), progress, self.ingest)

    def index(self, root: Path, progress: Progress) -> IngestReport:
        return build_index(root, self.find_corpora(), progress, self.ingest).report


@component("retriever.none")
class NoRetriever(Retriever):
    """No passages: samples are generated from the task definition alone."""

    def mean_chars(self, max_chars: int) -> None:  # noqa: ARG002
        return None

    def open(self, root: Path, progress: Progress) -> None:  # noqa: ARG002
        return None
