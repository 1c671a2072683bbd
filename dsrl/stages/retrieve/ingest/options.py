"""How corpora are read and cut: the same for every retriever."""

from typing import ClassVar

from pydantic import Field

from dsrl.core.component import Component, component
from dsrl.core.errors import UserError
from dsrl.stages.retrieve.ingest.records import IngestReport


@component("retriever.ingest")
class Ingest(Component):
    """Which field of a row is the text, how long a piece may be, what is left out, and how much is put up with."""

    excluded_from_key: ClassVar[frozenset[str]] = frozenset({"max_malformed", "max_expansion"})

    field: str = Field(default="text", min_length=1)
    """Field of a row that holds the text; a manifest's own goes before it."""
    id_field: str = Field(default="id", min_length=1)
    """Field of a row that names the document; where there is none, its file and line do."""
    max_chars: int = Field(default=2048, ge=1)
    """Longest piece, in characters. A longer document is cut where a sentence ends."""
    max_document_bytes: int = Field(default=32_000_000, ge=1)
    """A longer line or text file counts as malformed; no more of it is held in memory."""
    near_duplicates: float | None = Field(default=None, gt=0, lt=1)
    """Leave out documents that share about so much of their word triples (Jaccard) with an earlier one; null: keep
    them. Needs memory that grows with the corpus."""
    max_malformed: int = Field(default=100, ge=0)
    """Stop after more lines that are no documents."""
    max_expansion: float = Field(default=250.0, ge=1)
    """Refuse a compressed file that becomes more than so many times longer."""

    def put_up_with(self, report: IngestReport, what: str) -> None:
        """Raises `UserError` where more lines were no documents than are put up with."""
        if report.num_malformed > self.max_malformed:
            raise UserError(
                f"{what}: {report.num_malformed} lines are no documents",
                got="\n           ".join(map(str, report.malformed[:3])) or None,
                allowed=f"{self.max_malformed} (retriever.ingest.max_malformed)",
                next_step="name the right field (retriever.ingest.field=...), mend the lines, or allow more of them",
            )
