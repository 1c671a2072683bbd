"""Bodies of text to search: a JSONL file with one document a line, described by a manifest beside it."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dsrl.errors import UserError
from dsrl.home import home, resource
from dsrl.part import record


@record
class Manifest:
    """What `<name>.json` beside a corpus says."""

    name: str
    file: str
    """JSONL file, relative to the manifest; each line has an `id` and a text."""
    rows: int
    sha256: str
    licence: str
    source: str
    """Where the text comes from."""
    field: str = "text"
    """Which field of a line is the text."""


@dataclass(frozen=True)
class Document:
    """One line of a corpus."""

    id: str
    text: str


@dataclass(frozen=True)
class Corpus:
    """A corpus on this machine."""

    name: str
    path: Path
    sha256: str
    field: str
    rows: int | None
    """None: not counted yet."""

    def identity(self) -> list[str]:
        """Content decides; the name is in it because every passage carries it in its source."""
        return [self.name, self.sha256, self.field]

    def check(self) -> None:
        """Raises `UserError` where the text isn't there."""
        if not self.path.is_file():
            raise UserError(
                f"corpus {self.name}: no such file",
                got=str(self.path),
                next_step="put it there, or name another corpus: retriever.corpora=[...]",
            )

    def documents(self) -> Iterator[Document]:
        """Every document with a text. Raises `UserError` for a line that can't be read, naming it, and at the end if
        the whole was not what the manifest promises."""
        self.check()
        hasher = hashlib.sha256()
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                hasher.update(line)
                if line.strip():
                    yield self._document(number, line)
        if hasher.hexdigest() != self.sha256:
            raise UserError(
                f"corpus {self.name}: {self.path.name} is not the file that its manifest describes",
                got=f"sha256 {hasher.hexdigest()}",
                allowed=f"sha256 {self.sha256}",
                next_step="restore the file, or write the new digest and number of rows into the manifest",
            )

    def _document(self, number: int, line: bytes) -> Document:
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{self.path}, line {number} is not JSON", got=line[:80]) from error
        text = row.get(self.field) if isinstance(row, dict) else None
        if not isinstance(text, str):
            fields = ", ".join(row) if isinstance(row, dict) else line[:80]
            raise UserError(f"{self.path}, line {number} has no text under `{self.field}`", got=fields)
        return Document(str(row.get("id", number)), text)


def find_corpus(given: str) -> Corpus:
    """The corpus of this name, or of this manifest, or a bare JSONL file with its text under `text`."""
    if given.endswith(".jsonl"):
        return _bare(resource(given))
    path = resource(given if given.endswith(".json") else f"corpora/{given}.json")
    if not path.is_file():
        known = sorted(manifest.stem for manifest in (home() / "corpora").glob("*.json"))
        raise UserError(
            f"retriever.corpora: there is no corpus `{given}`",
            got=str(path),
            allowed=f"a name ({', '.join(known) or 'none ship'}), a manifest (.json) or a file of documents (.jsonl)",
            next_step="give retriever.corpora=[...], or retriever=none",
        )
    manifest = _read_manifest(path)
    return Corpus(manifest.name, path.parent / manifest.file, manifest.sha256, manifest.field, manifest.rows)


def _bare(path: Path) -> Corpus:
    if not path.is_file():
        raise UserError("retriever.corpora: no such file", got=str(path), next_step="check the path")
    with path.open("rb") as file:
        return Corpus(path.stem, path, hashlib.file_digest(file, "sha256").hexdigest(), "text", None)


def _read_manifest(path: Path) -> Manifest:
    try:
        manifest: Any = TypeAdapter(Manifest).validate_json(path.read_bytes())
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise UserError(f"{path} is not the manifest of a corpus", got=faults) from error
    assert isinstance(manifest, Manifest)
    return manifest
