"""Files, folders and archives as rows of documents, whatever their form. Nothing is ever unpacked onto the disk."""

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from dsrl.core.errors import UserError
from dsrl.stages.retrieve.ingest.records import Document, IngestReport, Malformed
from dsrl.stages.retrieve.ingest.rows import Fields, jsonl_rows, parquet_rows, text_row
from dsrl.stages.retrieve.ingest.streams import BUFFER, COMPRESSIONS, Counted, plain

if TYPE_CHECKING:
    from hashlib import _Hash

KINDS = {
    ".jsonl": "rows", ".ndjson": "rows", ".txt": "text", ".md": "text", ".parquet": "parquet", ".tar": "archive",
}  # fmt: skip
FORMS = ".jsonl .ndjson .txt .md .parquet .tar (also .gz, .zst, .tgz), or a folder of such"


@dataclass(frozen=True)
class Reading:
    """How the files of one corpus are read."""

    fields: Fields
    max_bytes: int
    max_expansion: float
    report: IngestReport
    hasher: "_Hash | None" = None

    def file(self, path: Path, name: str) -> Iterator[Document | Malformed]:
        """The rows of one file; `name` is what it is called in ids, empty for the only one."""
        kind = kind_of(path.name)
        if kind == "parquet":
            self._hash(path)
            yield from parquet_rows(path, name, self.fields, self.report)
            return
        with Counted(path, self.report, self.hasher) as raw:
            stream = plain(io.BufferedReader(raw, BUFFER), path.name, self.max_expansion)
            if kind == "archive":
                yield from self._archive(stream, path, name)
            else:
                yield from self._rows(stream, kind, str(path), name)
            while raw.read(BUFFER):  # what a decompressor or archive leaves at the end belongs to the digest
                pass

    def folder(self, folder: Path) -> Iterator[Document | Malformed]:
        """The rows of all files of known kind below a folder, in the order of their paths."""
        for path in members(folder):
            if kind_of(path.name) is None:
                self.report.skipped += 1
            else:
                yield from self.file(path, path.relative_to(folder).as_posix())

    def _rows(self, stream: Any, kind: str | None, file: str, name: str) -> Iterator[Document | Malformed]:
        if kind == "rows":
            return jsonl_rows(stream, file, name, self.fields, self.max_bytes)
        return text_row(stream, file, name or Path(file).name, self.max_bytes)

    def _archive(self, stream: Any, path: Path, name: str) -> Iterator[Document | Malformed]:
        try:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    archive.members = []  # type: ignore[attr-defined]  # it would keep them all
                    refuse_unsafe(member, path)
                    kind = kind_of(member.name) if member.isfile() else None
                    if kind in ("rows", "text"):
                        content = plain(archive.extractfile(member), member.name, self.max_expansion)
                        inner = f"{name}/{member.name}" if name else member.name
                        yield from self._rows(content, kind, f"{path}: {member.name}", inner.removeprefix("./"))
                    else:
                        self.report.skipped += member.isfile()
        except tarfile.TarError as error:
            raise UserError(f"{path} is not a whole tar archive", got=str(error), next_step="fetch it again") from error

    def _hash(self, path: Path) -> None:
        if self.hasher is not None:
            with path.open("rb") as file:
                while block := file.read(BUFFER):
                    self.hasher.update(block)


def refuse_unsafe(member: tarfile.TarInfo, archive: Path) -> None:
    """Archives from strangers: a member outside of it, a link or a device is a trick, and the whole isn't trusted."""
    path = PurePosixPath(member.name)
    fault = None
    if path.is_absolute() or ".." in path.parts:
        fault = "a path that leads out of the archive"
    elif member.issym() or member.islnk():
        fault = f"a link to {member.linkname}"
    elif not member.isfile() and not member.isdir():
        fault = "a device"
    if fault:
        raise UserError(
            f"{archive}: refused, because of its member {member.name}",
            got=fault,
            allowed="plain files and folders",
            next_step="pack the archive anew without it",
        )


def kind_of(name: str) -> str | None:
    """What stands in a file, by its name: rows, text, parquet or archive; None where that isn't known."""
    path = Path(name.lower())
    if path.name.startswith("."):
        return None
    if path.suffix == ".tgz":
        return "archive"
    if path.suffix in COMPRESSIONS:
        kind = KINDS.get(path.with_suffix("").suffix)
        return None if kind == "parquet" else kind
    return KINDS.get(path.suffix)


def members(folder: Path) -> list[Path]:
    """All files below a folder, in order; not those that links lead to."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
