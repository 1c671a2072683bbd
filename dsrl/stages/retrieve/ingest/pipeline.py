"""The stream of pieces that every search engine indexes: documents of all corpora, deduplicated, cut and counted."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING

from dsrl.core.errors import UserError
from dsrl.data.overlap.near_duplicates import NearDuplicates
from dsrl.stages.retrieve.ingest.chunking import split_text
from dsrl.stages.retrieve.ingest.dedup import SeenTexts
from dsrl.stages.retrieve.ingest.records import Document, Ingest, IngestReport, Piece

if TYPE_CHECKING:
    from dsrl.stages.retrieve.corpus import Corpus

BATCH_DOCUMENTS, BATCH_CHARS = 512, 4_000_000
"""A batch of documents for deduplication ends when it has this many documents or more than this many characters."""


def read_pieces(
    corpora: Sequence["Corpus"], options: Ingest, report: IngestReport, seen: SeenTexts | None = None
) -> Iterator[Piece]:
    """Yield the pieces of all corpora in order; two reads of the same corpora yield the same pieces.

    Of equal documents the first is kept. `report` is updated along the way. `seen` holds texts that count as read
    before; the caller closes it. Raises `UserError` for unreadable and empty corpora.
    """
    near = NearDuplicates(options.near_duplicates) if options.near_duplicates is not None else None
    with closing(SeenTexts()) if seen is None else nullcontext(seen) as known:
        for corpus in corpora:
            before = report.read
            for document in _deduplicate(corpus.documents(options, report), known, near, report):
                report.kept += 1
                for offset, text in split_text(document.text, options.max_chars):
                    report.pieces += 1
                    yield Piece(f"{corpus.name}/{document.id}", offset, text)
            if report.read == before:
                malformed = f"; {report.malformed[0]}" if report.malformed else ""
                raise UserError(
                    f"corpus {corpus.name} is empty",
                    got=f"no document with text in {corpus.location}{malformed}",
                    next_step="check the file and retriever.ingest.field, or remove it from retriever.corpora",
                )


def _deduplicate(
    documents: Iterable[Document], known: SeenTexts, near: NearDuplicates | None, report: IngestReport
) -> Iterator[Document]:
    for batch in _batches(documents):
        report.read += len(batch)
        added = known.add([document.text for document in batch])
        report.duplicates += len(batch) - sum(added)
        for document in itertools.compress(batch, added):
            if near is None or near.add_if_new(document.text):
                yield document
            else:
                report.near_duplicates += 1


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    length = 0
    for document in documents:
        batch.append(document)
        length += len(document.text)
        if len(batch) == BATCH_DOCUMENTS or length > BATCH_CHARS:
            yield batch
            batch, length = [], 0
    if batch:
        yield batch
