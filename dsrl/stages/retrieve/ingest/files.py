"""Reads files, folders and archives as rows, decompressed on the fly: nothing is unpacked onto the disk."""

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from dsrl.core.errors import UserError
from dsrl.stages.retrieve.ingest.records import Document, IngestReport, MalformedRow
from dsrl.stages.retrieve.ingest.rows import RowFields, read_jsonl, read_parquet, read_text

if TYPE_CHECKING:
    from hashlib import _Hash

FORMATS = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".txt": "text", ".md": "text", ".parquet": "parquet", ".tar": "archive",
}  # fmt: skip
SUPPORTED = ".jsonl .ndjson .txt .md .parquet .tar (also .gz, .zst, .tgz), or a folder of such files"
COMPRESSIONS = {".gz": "gzip", ".tgz": "gzip", ".zst": "zstd"}
BUFFER = 1 << 17
MIN_SUSPICIOUS_BYTES = 100_000_000
"""Decompressed size below which no expansion is refused."""


@dataclass(frozen=True)
class FileReader:
    """Reads the files of one corpus."""

    fields: RowFields
    max_bytes: int
    """Maximum length of a document."""
    max_expansion: float
    report: IngestReport
    hasher: "_Hash | None" = None
    """Updated with every byte of the files as they are on disk."""

    def read_file(self, path: Path, name: str) -> Iterator[Document | MalformedRow]:
        """Yield the rows of one file. `name` stands for it in default ids; empty for the only file of a corpus."""
        file_format = format_of(path.name)
        if file_format == "parquet":
            if self.hasher is not None:
                with path.open("rb") as file:
                    while block := file.read(BUFFER):
                        self.hasher.update(block)
            yield from read_parquet(path, name, self.fields, self.report)
            return
        with CountingFile(path, self.report, self.hasher) as raw:
            stream = decompress(io.BufferedReader(raw, BUFFER), path.name, self.max_expansion)
            if file_format == "archive":
                yield from self._read_archive(stream, path, name)
            else:
                yield from self._read_rows(stream, file_format, str(path), name)
            while raw.read(BUFFER):  # the digest includes what a decompressor or archive leaves unread at the end
                pass

    def read_folder(self, folder: Path) -> Iterator[Document | MalformedRow]:
        """Yield the rows of all files of known format below a folder, in the order of their paths."""
        for path in list_files(folder):
            if format_of(path.name) is None:
                self.report.skipped += 1
            else:
                yield from self.read_file(path, path.relative_to(folder).as_posix())

    def _read_rows(
        self, stream: Any, file_format: str | None, file: str, name: str
    ) -> Iterator[Document | MalformedRow]:
        if file_format == "jsonl":
            return read_jsonl(stream, file, name, self.fields, self.max_bytes)
        return read_text(stream, file, name or Path(file).name, self.max_bytes)

    def _read_archive(self, stream: Any, path: Path, name: str) -> Iterator[Document | MalformedRow]:
        try:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    archive.members = []  # type: ignore[attr-defined]  # tarfile would keep all of them in memory
                    check_member(member, path)
                    file_format = format_of(member.name) if member.isfile() else None
                    if file_format in ("jsonl", "text"):
                        content = decompress(archive.extractfile(member), member.name, self.max_expansion)
                        inner = f"{name}/{member.name}" if name else member.name
                        file = f"{path}: {member.name}"
                        yield from self._read_rows(content, file_format, file, inner.removeprefix("./"))
                    else:
                        self.report.skipped += member.isfile()
        except tarfile.TarError as error:
            raise UserError(
                f"{path} is not a complete tar archive", got=str(error), next_step="download it again"
            ) from error


def check_member(member: tarfile.TarInfo, archive: Path) -> None:
    """Raise `UserError` for paths outside of the archive, links and devices: such an archive is an attack."""
    path = PurePosixPath(member.name)
    fault = None
    if path.is_absolute() or ".." in path.parts:
        fault = "a path outside of the archive"
    elif member.issym() or member.islnk():
        fault = f"a link to {member.linkname}"
    elif not member.isfile() and not member.isdir():
        fault = "a device"
    if fault:
        raise UserError(
            f"{archive}: its member {member.name} is not allowed",
            got=fault,
            allowed="plain files and folders",
            next_step="make a new archive without it",
        )


def format_of(name: str) -> str | None:
    """Format of a file by its suffixes: jsonl, text, parquet, archive, or None if unknown."""
    path = Path(name.lower())
    if path.name.startswith("."):
        return None
    if path.suffix == ".tgz":
        return "archive"
    if path.suffix in COMPRESSIONS:
        inner = FORMATS.get(path.with_suffix("").suffix)
        return None if inner == "parquet" else inner
    return FORMATS.get(path.suffix)


def list_files(folder: Path) -> list[Path]:
    """All files below a folder, sorted; symbolic links are left out."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


class CountingFile(io.RawIOBase):
    """A file whose bytes are counted and hashed as they are read."""

    def __init__(self, path: Path, report: IngestReport, hasher: "_Hash | None" = None) -> None:
        self._file = path.open("rb", buffering=0)
        self._report, self._hasher = report, hasher

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer) or 0
        if self._hasher is not None:
            self._hasher.update(memoryview(buffer)[:count])
        self._report.bytes += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def decompress(inner: Any, name: str, max_expansion: float) -> io.BufferedReader:
    """The decompressed bytes of a stream, by the suffix of its name. Reading raises `UserError` for damaged data."""
    suffix = Path(name).suffix.lower()
    if suffix not in COMPRESSIONS:
        return inner if isinstance(inner, io.BufferedReader) else io.BufferedReader(inner, BUFFER)
    return io.BufferedReader(DecompressedStream(inner, COMPRESSIONS[suffix], name, max_expansion), BUFFER)


class DecompressedStream(io.RawIOBase):
    """Decompresses a stream. Raises `UserError` if it is damaged, truncated or a decompression bomb."""

    def __init__(self, inner: Any, compression: str, name: str, max_expansion: float) -> None:
        import pyarrow

        self._inner, self._name, self._max_expansion = inner, name, max_expansion
        self._bytes_in = self._bytes_out = 0
        self._stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(self._Input(self), mode="r"), compression)

    class _Input(io.RawIOBase):
        """Counts the compressed bytes that the decompressor has read."""

        def __init__(self, outer: "DecompressedStream") -> None:
            self._outer = outer

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            block: bytes = self._outer._inner.read(size)
            self._outer._bytes_in += len(block)
            return block

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            block = self._stream.read(len(buffer))
        except OSError as error:
            raise UserError(
                f"{self._name} is damaged or truncated",
                got=str(error).splitlines()[0],
                next_step="download the file again",
            ) from error
        self._bytes_out += len(block)
        if self._bytes_out > max(MIN_SUSPICIOUS_BYTES, self._max_expansion * self._bytes_in):
            raise UserError(
                f"{self._name} expands too much",
                got=f"{self._bytes_out / 1e6:.0f} MB from {self._bytes_in / 1e6:.1f} MB",
                allowed=f"{self._max_expansion:g} times its size",
                next_step="if you trust the file, raise retriever.ingest.max_expansion",
            )
        buffer[: len(block)] = block
        return len(block)
