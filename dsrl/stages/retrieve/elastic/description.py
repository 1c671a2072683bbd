"""`retriever=elasticsearch`: the same corpora and the same ranking as `embedded`, on a server."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dsrl.core.component import component
from dsrl.pipeline.progress.progress import Progress
from dsrl.stages.retrieve.corpus import Corpus
from dsrl.stages.retrieve.elastic.access import Access
from dsrl.stages.retrieve.elastic.mapping import VERSION, Place, places, settings
from dsrl.stages.retrieve.index_build import progress_unit
from dsrl.stages.retrieve.ingest import IngestReport, read_pieces
from dsrl.stages.retrieve.retriever import CorpusRetriever, Retriever

if TYPE_CHECKING:
    from dsrl.stages.retrieve.elastic.connection import Connection
    from dsrl.stages.retrieve.elastic.index import Entry, Whole
    from dsrl.stages.retrieve.elastic.searcher import ElasticSearcher

PREFIX = r"^[a-z0-9][a-z0-9_.-]{0,99}$"
"""What the names of indexes may begin with."""


@component("retriever.elasticsearch")
class Elasticsearch(CorpusRetriever, Access):
    """BM25 over corpora that an Elasticsearch holds; what it doesn't hold yet is read on this machine and sent.

    Each corpus is an index by itself, so that adding one at the end of the list sends only that one.
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
    """Indexes are called `<prefix>-<digest of what is in them>-v<version>`."""
    shards: int = Field(default=1, ge=1)
    """Primary shards of a new index; one holds tens of millions of passages."""
    replicas: int = Field(default=0, ge=0)
    """Copies of a new index, on other nodes."""
    concurrency: int = Field(default=4, ge=1)
    """Bulk requests in flight."""
    request_bytes: int = Field(default=5_000_000, ge=1000)
    """Longest bulk request."""

    def key_fields(self) -> dict[str, Any]:
        """Corpora by content and how they are cut; neither where the server is nor how it is reached."""
        return {**super().key_fields(), "index": VERSION}

    def check(self) -> None:
        """The corpora are there and the environment holds what it should; the server is asked once it is needed."""
        super().check()
        self.arguments()

    def open(self, root: Path, progress: Progress) -> "ElasticSearcher":
        """Raises `UserError` within seconds where the server is down, denies access or lacks data."""
        from dsrl.stages.retrieve.elastic.searcher import ElasticSearcher

        corpora = self.find_corpora()
        connection = self._connect()
        try:
            holds = self._made(connection, corpora, root, progress)
        except BaseException:
            connection.close()
            raise
        return ElasticSearcher(connection, self, self._places(corpora), sum(whole.passages for whole in holds))

    def index(self, root: Path, progress: Progress) -> IngestReport:
        with self._connect() as connection:
            return self._made(connection, self.find_corpora(), root, progress)[-1].report

    def _connect(self) -> "Connection":
        """To a server that was seen to be fit."""
        from dsrl.stages.retrieve.elastic.connection import Connection
        from dsrl.stages.retrieve.elastic.index import check_server

        connection = Connection(self)
        try:
            connection.run(check_server(connection.client, self))
        except BaseException:
            connection.close()
            raise
        return connection

    def _places(self, corpora: Sequence[Corpus]) -> list[Place]:
        return places(self.prefix, [(corpus.name, corpus.key_fields()) for corpus in corpora], self.ingest.key_fields())

    def _made(
        self, connection: "Connection", corpora: Sequence[Corpus], root: Path, progress: Progress
    ) -> "list[Whole]":
        """All indexes, whole. Runs on one store take turns; others come to the same result."""
        from filelock import FileLock

        from dsrl.stages.retrieve.elastic.index import all_whole

        where = self._places(corpora)
        if holds := connection.run(all_whole(connection.client, where)):
            self.ingest.check_malformed(holds[-1].report, f"index {where[-1].alias}")
            return holds
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{where[-1].alias}.lock"):
            self._fill(connection, corpora, where, progress)
        holds = connection.run(all_whole(connection.client, where))
        assert holds is not None
        return holds

    def _fill(
        self, connection: "Connection", corpora: Sequence[Corpus], where: Sequence[Place], progress: Progress
    ) -> None:
        from dsrl.stages.retrieve.elastic.index import Load, make_whole

        report = IngestReport()
        load = Load(self.concurrency, self.request_bytes, settings(self.shards, self.replicas), progress_unit(corpora))
        entries = self._entries(corpora, where, report)
        connection.run(make_whole(connection.client, self, where, entries, report, load, progress))

    def _entries(self, corpora: Sequence[Corpus], where: Sequence[Place], report: IngestReport) -> Iterator["Entry"]:
        """The pieces of all corpora in order, each with its number and its place."""
        from dsrl.stages.retrieve.elastic.index import Entry

        at = 0
        for number, piece in enumerate(read_pieces(corpora, self.ingest, report)):
            while not piece.source.startswith(f"{where[at].corpus}/"):
                at += 1
            yield Entry(where[at], number, piece)
