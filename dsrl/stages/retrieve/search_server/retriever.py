"""`retriever=elasticsearch` and `retriever=opensearch`: the corpora and ranking of `embedded`, on a server."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dsrl.core.component import component
from dsrl.pipeline.progress.progress import Progress
from dsrl.stages.retrieve.corpus import Corpus
from dsrl.stages.retrieve.index_build import progress_unit
from dsrl.stages.retrieve.ingest import IngestReport, read_pieces
from dsrl.stages.retrieve.retriever import CorpusRetriever, Retriever
from dsrl.stages.retrieve.search_server.access import Access
from dsrl.stages.retrieve.search_server.layout import VERSION, IndexName, creation_request, index_names

if TYPE_CHECKING:
    from dsrl.stages.retrieve.search_server.client import SearchClient
    from dsrl.stages.retrieve.search_server.indexing import IndexStats, NumberedPiece, ServerInfo
    from dsrl.stages.retrieve.search_server.searcher import ServerSearcher

PREFIX = r"^[a-z0-9][a-z0-9_.-]{0,99}$"
OPENSEARCH_SCALE = 2.2
"""OpenSearch 3 and later leave the constant factor k1 + 1 out of BM25."""


@component("retriever.elasticsearch")
class SearchServer(CorpusRetriever, Access):
    """BM25 on an Elasticsearch or OpenSearch server; corpora that it doesn't have yet are read here and sent to it.

    Each corpus is an index by itself, so that appending one to the list sends only that one. Which product answers is
    found out by asking, and makes no difference to results or keys.
    """

    excluded_from_key: ClassVar[frozenset[str]] = frozenset(
        {
            *Retriever.excluded_from_key,
            *Access.__dataclass_fields__,
            "prefix",
            "shards",
            "replicas",
            "concurrency",
            "request_bytes",
        }
    )

    prefix: str = Field(default="dsrl", pattern=PREFIX)
    """Indexes are named `<prefix>-<digest of their content>-v<version>-passages`."""
    shards: int | None = Field(default=None, ge=1)
    """Primary shards of a new index; null: the server's default. One shard holds tens of millions of passages."""
    replicas: int | None = Field(default=None, ge=0)
    """Replicas of a new index; null: the server's default."""
    concurrency: int = Field(default=4, ge=1)
    """Bulk requests in flight."""
    request_bytes: int = Field(default=5_000_000, ge=1000)
    """Maximum length of a bulk request."""

    def key_fields(self) -> dict[str, Any]:
        """Corpora by content and how they are cut; not where the server is or which product it runs."""
        return {**super().key_fields(), "index": VERSION}

    def check(self) -> None:
        super().check()
        Access.check(self)

    def open(self, root: Path, progress: Progress) -> "ServerSearcher":
        """Raises `UserError` within seconds if the server is down, denies access or misses data."""
        from dsrl.stages.retrieve.search_server.searcher import ServerSearcher

        corpora = self.find_corpora()
        client, info = self.connect(progress)
        try:
            stats = self._ensure_indexes(client, corpora, root, progress)
        except BaseException:
            client.close()
            raise
        is_new = info.is_opensearch and int(info.version.partition(".")[0]) >= 3
        return ServerSearcher(
            client,
            self.index_names(corpora),
            num_documents=sum(index.num_passages for index in stats),
            distributed=sum(index.num_shards for index in stats) > 1,
            score_scale=OPENSEARCH_SCALE if is_new else 1.0,
        )

    def index(self, root: Path, progress: Progress) -> IngestReport:
        client, _ = self.connect(progress)
        with client:
            return self._ensure_indexes(client, self.find_corpora(), root, progress)[-1].report

    def connect(self, progress: Progress) -> "tuple[SearchClient, ServerInfo]":
        """A client of a server that answers and is supported. Raises `UserError` within seconds."""
        from dsrl.stages.retrieve.search_server.client import SearchClient
        from dsrl.stages.retrieve.search_server.indexing import check_server

        client = SearchClient(self, progress.say)
        try:
            return client, client.run(check_server(client))
        except BaseException:
            client.close()
            raise

    def index_names(self, corpora: Sequence[Corpus]) -> list[IndexName]:
        keys = [(corpus.name, corpus.key_fields()) for corpus in corpora]
        return index_names(self.prefix, keys, self.ingest.key_fields())

    def _ensure_indexes(
        self, client: "SearchClient", corpora: Sequence[Corpus], root: Path, progress: Progress
    ) -> "list[IndexStats]":
        """Stats of all indexes, built if needed. Runs on the same store take turns; others reach the same result."""
        from filelock import FileLock

        from dsrl.stages.retrieve.search_server.indexing import BulkLimits, build_indexes, load_all_stats

        names = self.index_names(corpora)
        if stats := client.run(load_all_stats(client, names)):
            self.ingest.check_malformed(stats[-1].report, f"index {names[-1].alias}")
            return stats
        root.mkdir(parents=True, exist_ok=True)
        report = IngestReport()
        with FileLock(root / f".{names[-1].alias}.lock"):
            client.run(
                build_indexes(
                    client,
                    names,
                    self._number_pieces(corpora, names, report),
                    report,
                    creation_request(self.shards, self.replicas),
                    BulkLimits(self.concurrency, self.request_bytes),
                    progress_unit(corpora),
                    progress,
                )
            )
        stats = client.run(load_all_stats(client, names))
        assert stats is not None
        return stats

    def _number_pieces(
        self, corpora: Sequence[Corpus], names: Sequence[IndexName], report: IngestReport
    ) -> Iterator["NumberedPiece"]:
        from dsrl.stages.retrieve.search_server.indexing import NumberedPiece

        place = 0
        for number, piece in enumerate(read_pieces(corpora, self.ingest, report)):
            while not piece.source.startswith(f"{names[place].corpus}/"):
                place += 1
            yield NumberedPiece(names[place], number, piece)
