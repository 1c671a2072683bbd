"""How corpora are read (`Ingest`), what flows from them into an index, and the count of it (`IngestReport`)."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field

from dsrl.core.component import Component, component
from dsrl.core.errors import UserError

NUM_SHOWN = 20
"""Malformed rows that are kept as examples."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text of a corpus."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Piece:
    """The unit that is indexed: `text` is the part of its document that starts at character `offset`."""

    source: str
    """`<corpus>/<document id>`."""
    offset: int
    text: str


@dataclass(frozen=True, slots=True)
class MalformedRow:
    """A row that can't be read as a document."""

    file: str
    line: int
    found: str
    """What the row contains instead."""

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.found}"


@dataclass
class IngestReport:
    """Counts of documents by outcome, updated while they are read. Stored as JSON with every index."""

    read: int = 0
    """Documents with a text."""
    kept: int = 0
    """Documents that are not duplicates."""
    pieces: int = 0
    """Pieces that the kept documents were cut into."""
    duplicates: int = 0
    """Documents whose text came before, ignoring case and spacing."""
    near_duplicates: int = 0
    empty: int = 0
    num_malformed: int = 0
    malformed: list[MalformedRow] = dataclasses.field(default_factory=list)
    """The first `NUM_SHOWN` of them."""
    skipped: int = 0
    """Files of a folder or an archive in an unknown format."""
    bytes: int = 0
    """Bytes read from disk, before decompression."""

    def add_malformed(self, row: MalformedRow) -> None:
        self.num_malformed += 1
        if len(self.malformed) < NUM_SHOWN:
            self.malformed.append(row)

    def merge(self, other: "IngestReport") -> "IngestReport":
        """Sum of both reports."""
        values = {
            field.name: getattr(self, field.name) + getattr(other, field.name) for field in dataclasses.fields(self)
        }
        values["malformed"] = values["malformed"][:NUM_SHOWN]
        return IngestReport(**values)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "IngestReport":
        """Inverse of `dataclasses.asdict`."""
        return cls(**{**values, "malformed": [MalformedRow(**row) for row in values["malformed"]]})


@component("retriever.ingest")
class Ingest(Component):
    """How corpora are read and cut; the same for every retriever."""

    excluded_from_key: ClassVar[frozenset[str]] = frozenset({"max_malformed", "max_expansion"})

    field: str = Field(default="text", min_length=1)
    """Field of a row that contains the text; a manifest's `field` takes precedence."""
    id_field: str = Field(default="id", min_length=1)
    """Field of a row that names the document; without it, file and line do."""
    max_chars: int = Field(default=2048, ge=1)
    """Maximum characters of a piece. Longer documents are cut at the end of a sentence."""
    max_document_bytes: int = Field(default=32_000_000, ge=1)
    """Longer lines and text files count as malformed and are not held in memory."""
    near_duplicates: float | None = Field(default=None, gt=0, lt=1)
    """Drop documents whose word triples are this similar (Jaccard) to those of an earlier one; null: keep them.
    Memory grows with the corpus."""
    max_malformed: int = Field(default=100, ge=0)
    """Stop after more malformed rows than this."""
    max_expansion: float = Field(default=250.0, ge=1)
    """Refuse compressed files that expand by more than this factor."""

    def check_malformed(self, report: IngestReport, what: str) -> None:
        """Raise `UserError` if `report` counts more malformed rows than `max_malformed`."""
        if report.num_malformed > self.max_malformed:
            raise UserError(
                f"{what}: {report.num_malformed} malformed rows",
                got="\n           ".join(map(str, report.malformed[:3])) or None,
                allowed=f"{self.max_malformed} (retriever.ingest.max_malformed)",
                next_step="set retriever.ingest.field=..., correct the rows, or raise retriever.ingest.max_malformed",
            )
