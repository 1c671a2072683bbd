"""Finds the corpora that are searched: by name, by path, or on the Hugging Face Hub."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dsrl.core.component import record
from dsrl.core.digest import digest, file_digest
from dsrl.core.errors import UserError
from dsrl.core.resources import home, resource
from dsrl.stages.retrieve.ingest.files import SUPPORTED, FileReader, format_of, list_files
from dsrl.stages.retrieve.ingest.hub import HubDataset
from dsrl.stages.retrieve.ingest.records import Document, Ingest, IngestReport, MalformedRow
from dsrl.stages.retrieve.ingest.rows import RowFields

CHECKED_ROWS = 20
"""First rows of a corpus of which at least one must be a document."""


@record
class CorpusManifest:
    """Content of `<name>.json`, which lies beside the file it describes."""

    name: str
    file: str
    """Path relative to the manifest: JSONL, Parquet, text or a tar archive, optionally compressed."""
    rows: int
    sha256: str
    """SHA-256 of the file as it is on disk."""
    licence: str
    source: str
    """Where the text comes from."""
    field: str = "text"
    """Field of a row that contains the text."""


@dataclass(frozen=True)
class Corpus:
    """A corpus on this machine or on the Hub."""

    name: str
    location: Path | HubDataset
    """A file, a folder, or a dataset on the Hub."""
    sha256: str | None = None
    """Expected SHA-256 of the file."""
    field: str | None = None
    """Field of a row that contains the text; None: `Ingest.field`."""
    rows: int | None = None
    """Number of rows, if known."""

    @cached_property
    def content_digest(self) -> str:
        """Digest of the content. For files over 64 MiB without a manifest: of their size and blocks of them. For
        datasets on the Hub: of name and revision, so give a revision if the dataset may change."""
        if self.sha256 is not None:
            return self.sha256
        if isinstance(self.location, HubDataset):
            return digest(self.location.key_fields())
        self.check()
        if self.location.is_file():
            return file_digest(self.location)
        files = list_files(self.location)
        return digest([[path.relative_to(self.location).as_posix(), file_digest(path)] for path in files])

    def key_fields(self) -> list[str]:
        """Name and content. The name is included because it is part of every passage's source."""
        return [self.name, self.content_digest, *([self.field] if self.field else [])]

    def num_bytes(self) -> int | None:
        """Bytes on disk; None for datasets on the Hub."""
        if isinstance(self.location, HubDataset):
            return None
        return sum(path.stat().st_size for path in self._files(self.location))

    def check(self) -> None:
        """Raise `UserError` if the corpus doesn't exist or contains no file of a known format."""
        if isinstance(self.location, HubDataset):
            self.location.check()
            return
        if not self.location.exists():
            raise UserError(
                f"corpus {self.name}: no such file",
                got=str(self.location),
                next_step="restore it, or name another corpus: retriever.corpora=[...]",
            )
        if not any(format_of(path.name) for path in self._files(self.location)):
            raise UserError(
                f"corpus {self.name}: it contains no readable file", got=str(self.location), allowed=SUPPORTED
            )

    def check_first_rows(self, options: Ingest) -> None:
        """Raise `UserError` if none of the first rows is a document; most often `retriever.ingest.field` is wrong."""
        if isinstance(self.location, HubDataset):
            return
        malformed: list[MalformedRow] = []
        for row in self._read(options, IngestReport(), None):
            if isinstance(row, Document):
                return
            malformed.append(row)
            if len(malformed) == CHECKED_ROWS:
                break
        if malformed:
            raise UserError(
                f"corpus {self.name}: none of its first rows is a document",
                got=str(malformed[0]),
                next_step="name the field with the text: retriever.ingest.field=...",
            )

    def documents(self, options: Ingest | None = None, report: IngestReport | None = None) -> Iterator[Document]:
        """Yield every document with a text, duplicates included; empty and malformed rows are counted in `report`.

        Raises `UserError` after more than `options.max_malformed` malformed rows, and after the last row if the
        file's SHA-256 is not that of its manifest.
        """
        options, report = options or Ingest(), report or IngestReport()
        self.check()
        hasher = hashlib.sha256() if self.sha256 is not None else None
        for row in self._read(options, report, hasher):
            if isinstance(row, MalformedRow):
                report.add_malformed(row)
                options.check_malformed(report, f"corpus {self.name}")
            elif row.text.strip():
                yield row
            else:
                report.empty += 1
        if hasher is not None and hasher.hexdigest() != self.sha256:
            raise UserError(
                f"corpus {self.name}: {self.location} is not the file that its manifest describes",
                got=f"sha256 {hasher.hexdigest()}",
                allowed=f"sha256 {self.sha256}",
                next_step="restore the file, or write the new sha256 and number of rows into the manifest",
            )

    def _read(self, options: Ingest, report: IngestReport, hasher: Any) -> Iterator[Document | MalformedRow]:
        fields = RowFields(self.field or options.field, options.id_field)
        if isinstance(self.location, HubDataset):
            return self.location.rows(fields)
        reader = FileReader(fields, options.max_document_bytes, options.max_expansion, report, hasher)
        is_file = self.location.is_file()
        return reader.read_file(self.location, "") if is_file else reader.read_folder(self.location)

    def _files(self, location: Path) -> list[Path]:
        return [location] if location.is_file() else list_files(location)


def find_corpus(given: str) -> Corpus:
    """The corpus with this name or manifest, at this path, or on the Hub (`hf:owner/name:config@revision#split`)."""
    if given.startswith("hf:"):
        dataset = HubDataset.parse(given)
        return Corpus(dataset.id.strip("/").rpartition("/")[2], dataset)
    path = resource(given if given.endswith(".json") else f"corpora/{given}.json")
    if path.is_file():
        manifest = _read_manifest(path)
        return Corpus(manifest.name, path.parent / manifest.file, manifest.sha256, manifest.field, manifest.rows)
    location = resource(given)
    if location.exists():
        name = location.name if location.is_dir() else location.name.partition(".")[0]
        return Corpus(name or location.name, location)
    if format_of(location.name):
        raise UserError("retriever.corpora: no such file", got=str(location), next_step="correct the path")
    known = sorted(manifest.stem for manifest in (home() / "corpora").glob("*.json"))
    raise UserError(
        f"retriever.corpora: unknown corpus `{given}`",
        got=str(path),
        allowed=f"a name ({', '.join(known) or 'none ship'}), a manifest (.json), a path ({SUPPORTED}), hf:owner/name",
        next_step="set retriever.corpora=[...], or retriever=none",
    )


def _read_manifest(path: Path) -> CorpusManifest:
    try:
        manifest: CorpusManifest = TypeAdapter(CorpusManifest).validate_json(path.read_bytes())
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise UserError(f"{path} is not a valid corpus manifest", got=faults) from error
    return manifest
