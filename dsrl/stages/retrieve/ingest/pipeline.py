"""The one stream that every engine indexes: documents of all corpora, each text once, cut and counted."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from dsrl.core.errors import UserError
from dsrl.data.overlap.near_duplicates import NearDuplicates
from dsrl.stages.retrieve.ingest.chunking import pieces
from dsrl.stages.retrieve.ingest.dedup import Seen
from dsrl.stages.retrieve.ingest.records import Document, IngestReport, Piece

if TYPE_CHECKING:
    from dsrl.stages.retrieve.corpus import Corpus
    from dsrl.stages.retrieve.ingest.options import Ingest

AT_ONCE, AT_ONCE_CHARS = 512, 4_000_000
"""Documents, and characters, that are looked up together."""


def read(
    corpora: Sequence["Corpus"], options: "Ingest", report: IngestReport, seen: Seen | None = None
) -> Iterator[Piece]:
    """The pieces of all corpora in order, always the same ones; of equal documents the first stays. `report` fills as
    they come. `seen` holds texts that count as read before. Raises `UserError` where a corpus can't be read on."""
    near = NearDuplicates(options.near_duplicates) if options.near_duplicates is not None else None
    with Seen() if seen is None else nullcontext(seen) as known:
        for corpus in corpora:
            before = report.read
            for document in _different(corpus.documents(options, report), known, near, report):
                report.kept += 1
                for offset, text in pieces(document.text, options.max_chars):
                    report.pieces += 1
                    yield Piece(f"{corpus.name}/{document.id}", offset, text)
            if report.read == before:
                _refuse_empty(corpus, report)


def _different(
    documents: Iterable[Document], known: Seen, near: NearDuplicates | None, report: IngestReport
) -> Iterator[Document]:
    for batch in batches(documents):
        report.read += len(batch)
        fresh = known.new([document.text for document in batch])
        report.duplicates += len(batch) - sum(fresh)
        for document in itertools.compress(batch, fresh):
            if near is None or near.add_if_new(document.text):
                yield document
            else:
                report.near_duplicates += 1


def batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """So many at a time that neither their number nor their length gets large."""
    batch: list[Document] = []
    length = 0
    for document in documents:
        batch.append(document)
        length += len(document.text)
        if len(batch) == AT_ONCE or length > AT_ONCE_CHARS:
            yield batch
            batch, length = [], 0
    if batch:
        yield batch


def _refuse_empty(corpus: "Corpus", report: IngestReport) -> None:
    malformed = f"; {report.malformed[0]}" if report.malformed else ""
    raise UserError(
        f"corpus {corpus.name} is empty",
        got=f"no document with a text in {corpus.place}{malformed}",
        next_step="check the file and retriever.ingest.field, or leave the corpus out of retriever.corpora",
    )
