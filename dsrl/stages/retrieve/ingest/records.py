"""What flows from a corpus into an index, and the count of it."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

NUM_SHOWN = 20
"""Malformed lines that are kept as examples."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text of a corpus."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a document that is indexed by itself: `text` stands in its document at `offset`, character for
    character."""

    source: str
    """`<corpus>/<id of the document>`."""
    offset: int
    text: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """A line that is no document."""

    file: str
    line: int
    found: str
    """What stands there, in words."""

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.found}"


@dataclass
class IngestReport:
    """What became of the documents; filled while they flow."""

    read: int = 0
    """Documents with a text."""
    kept: int = 0
    """Those that were not left out as repeats."""
    pieces: int = 0
    """Into which they were cut."""
    duplicates: int = 0
    """Documents whose text had come before, but for case and spacing."""
    near_duplicates: int = 0
    empty: int = 0
    """Documents without a word."""
    num_malformed: int = 0
    malformed: list[Malformed] = field(default_factory=list)
    """The first of them."""
    skipped: int = 0
    """Files of a folder or an archive whose kind isn't known."""
    bytes: int = 0
    """Read from disk, as they lie there."""

    def spoilt(self, line: Malformed) -> None:
        """Count a line that is no document."""
        self.num_malformed += 1
        if len(self.malformed) < NUM_SHOWN:
            self.malformed.append(line)

    def plus(self, other: "IngestReport") -> "IngestReport":
        """Both together."""
        values = {
            place.name: getattr(self, place.name) + getattr(other, place.name) for place in dataclasses.fields(self)
        }
        values["malformed"] = values["malformed"][:NUM_SHOWN]
        return IngestReport(**values)

    @classmethod
    def of(cls, values: dict[str, Any]) -> "IngestReport":
        """From its JSON form, `dataclasses.asdict`."""
        return cls(**{**values, "malformed": [Malformed(**line) for line in values["malformed"]]})
