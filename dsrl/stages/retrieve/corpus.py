"""Bodies of text to search: by name, by path, or on the Hugging Face hub."""

import hashlib
import re
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
from dsrl.stages.retrieve.ingest.files import FORMS, Reading, kind_of, members
from dsrl.stages.retrieve.ingest.hub import Hub
from dsrl.stages.retrieve.ingest.options import Ingest
from dsrl.stages.retrieve.ingest.records import Document, IngestReport, Malformed
from dsrl.stages.retrieve.ingest.rows import Fields

__all__ = ["Corpus", "Document", "Manifest", "find_corpus"]

TRIED = 20
"""First rows of a file that are looked at before work starts."""
HUB_ID = re.compile(r"hf:(?P<id>[^:@#]+)(?::(?P<config>[^@#]+))?(?:@(?P<revision>[^#]+))?(?:#(?P<split>.+))?")


@record
class Manifest:
    """What `<name>.json` beside a corpus says."""

    name: str
    file: str
    """Relative to the manifest: JSONL, Parquet, text or a tar archive, also compressed."""
    rows: int
    sha256: str
    """Of the file as it lies there."""
    licence: str
    source: str
    """Where the text comes from."""
    field: str = "text"
    """Which field of a row is the text."""


@dataclass(frozen=True)
class Corpus:
    """A corpus on this machine or on the hub."""

    name: str
    place: Path | Hub
    """A file, a folder, or a data set on the hub."""
    sha256: str | None = None
    """That the file has to have."""
    field: str | None = None
    """Which field of a row is the text; None: the one that `Ingest` names."""
    rows: int | None = None
    """None: not known."""

    @cached_property
    def content(self) -> str:
        """Digest of the content: of a bare file over 64 MiB, of its size and blocks of it. Of a data set on the hub,
        its name and revision: what stands behind an unnamed revision may change without a word."""
        if self.sha256 is not None:
            return self.sha256
        if isinstance(self.place, Hub):
            return digest(self.place.key_fields())
        self.check()
        if self.place.is_file():
            return file_digest(self.place)
        return digest([[path.relative_to(self.place).as_posix(), file_digest(path)] for path in members(self.place)])

    def key_fields(self) -> list[str]:
        """Content decides; the name is in it because every passage carries it in its source."""
        return [self.name, self.content, *([self.field] if self.field else [])]

    def size(self) -> int | None:
        """Bytes on disk; None where that isn't known."""
        if isinstance(self.place, Hub):
            return None
        return sum(path.stat().st_size for path in self._files())

    def check(self) -> None:
        """Raises `UserError` where the text isn't there, or isn't of a known kind."""
        if isinstance(self.place, Hub):
            self.place.check()
            return
        if not self.place.exists():
            raise UserError(
                f"corpus {self.name}: no such file",
                got=str(self.place),
                next_step="put it there, or name another corpus: retriever.corpora=[...]",
            )
        if not any(kind_of(path.name) for path in self._files()):
            raise UserError(f"corpus {self.name}: nothing in it can be read", got=str(self.place), allowed=FORMS)

    def try_rows(self, options: Ingest) -> None:
        """Raises `UserError` where none of the first rows is a document: the field is misnamed, most often."""
        if isinstance(self.place, Hub):
            return
        first: list[Malformed] = []
        for found in self._found(options, IngestReport(), None):
            if isinstance(found, Document):
                return
            first.append(found)
            if len(first) == TRIED:
                break
        if first:
            raise UserError(
                f"corpus {self.name}: no document among its first rows",
                got=str(first[0]),
                next_step="name the field with the text: retriever.ingest.field=...",
            )

    def documents(self, options: Ingest | None = None, report: IngestReport | None = None) -> Iterator[Document]:
        """Every document with a text; malformed lines are counted in `report`, and repeated ones not left out. Raises
        `UserError` after more malformed ones than `options` put up with, and at the end if the whole was not what its
        manifest promises."""
        options, report = options or Ingest(), report or IngestReport()
        self.check()
        hasher = hashlib.sha256() if self.sha256 is not None else None
        for found in self._found(options, report, hasher):
            if isinstance(found, Malformed):
                report.spoilt(found)
                options.put_up_with(report, f"corpus {self.name}")
            elif found.text.strip():
                yield found
            else:
                report.empty += 1
        if hasher is not None and hasher.hexdigest() != self.sha256:
            self._refuse_changed(hasher.hexdigest())

    def _found(self, options: Ingest, report: IngestReport, hasher: Any) -> Iterator[Document | Malformed]:
        fields = Fields(self.field or options.field, options.id_field)
        if isinstance(self.place, Hub):
            return self.place.rows(fields)
        reading = Reading(fields, options.max_document_bytes, options.max_expansion, report, hasher)
        return reading.file(self.place, "") if self.place.is_file() else reading.folder(self.place)

    def _files(self) -> list[Path]:
        assert isinstance(self.place, Path)
        return [self.place] if self.place.is_file() else members(self.place)

    def _refuse_changed(self, found: str) -> None:
        raise UserError(
            f"corpus {self.name}: {self.place} is not the file that its manifest describes",
            got=f"sha256 {found}",
            allowed=f"sha256 {self.sha256}",
            next_step="restore the file, or write the new digest and number of rows into the manifest",
        )


def find_corpus(given: str) -> Corpus:
    """The corpus of this name, of this manifest, at this path, or on the hub: `hf:owner/name:config@revision#split`."""
    if given.startswith("hf:"):
        return _on_hub(given)
    path = resource(given if given.endswith(".json") else f"corpora/{given}.json")
    if path.is_file():
        manifest = _read_manifest(path)
        return Corpus(manifest.name, path.parent / manifest.file, manifest.sha256, manifest.field, manifest.rows)
    place = resource(given)
    if place.exists() or kind_of(place.name):
        return _bare(place)
    known = sorted(manifest.stem for manifest in (home() / "corpora").glob("*.json"))
    raise UserError(
        f"retriever.corpora: there is no corpus `{given}`",
        got=str(path),
        allowed=f"a name ({', '.join(known) or 'none ship'}), a manifest (.json), a path ({FORMS}), or hf:owner/name",
        next_step="give retriever.corpora=[...], or retriever=none",
    )


def _bare(place: Path) -> Corpus:
    if not place.exists():
        raise UserError("retriever.corpora: no such file", got=str(place), next_step="check the path")
    name = place.name if place.is_dir() else place.name.partition(".")[0]
    return Corpus(name or place.name, place)


def _on_hub(given: str) -> Corpus:
    found = HUB_ID.fullmatch(given)
    if found is None:
        raise UserError(
            "retriever.corpora: not the name of a data set on the hub",
            got=given,
            allowed="hf:owner/name, with :config, @revision and #split where there are such",
        )
    return Corpus(found["id"].strip("/").rpartition("/")[2], Hub(**found.groupdict()))


def _read_manifest(path: Path) -> Manifest:
    try:
        manifest: Any = TypeAdapter(Manifest).validate_json(path.read_bytes())
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise UserError(f"{path} is not the manifest of a corpus", got=faults) from error
    assert isinstance(manifest, Manifest)
    return manifest
