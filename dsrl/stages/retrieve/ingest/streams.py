"""Files as streams of plain bytes: decompressed as they are read, counted, and stopped where they grow absurdly."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsrl.core.errors import UserError

if TYPE_CHECKING:
    from hashlib import _Hash

    from dsrl.stages.retrieve.ingest.records import IngestReport

BUFFER = 1 << 17
SLACK = 100_000_000
"""Bytes up to which any expansion is let pass."""
COMPRESSIONS = {".gz": "gzip", ".tgz": "gzip", ".zst": "zstd"}


class Counted(io.RawIOBase):
    """A file as it lies on disk; what is read is counted and hashed."""

    def __init__(self, path: Path, report: "IngestReport", hasher: "_Hash | None" = None) -> None:
        self._file = path.open("rb", buffering=0)
        self._report, self._hasher = report, hasher
        self.num_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer) or 0
        if self._hasher is not None:
            self._hasher.update(memoryview(buffer)[:count])
        self.num_bytes += count
        self._report.bytes += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class Expanded(io.RawIOBase):
    """The plain bytes of a compressed stream. Raises `UserError` where it is damaged, cut short or absurd."""

    def __init__(self, inner: Any, compression: str, name: str, most: float) -> None:
        import pyarrow

        self._inner, self._name, self._most = inner, name, most
        self._plain = pyarrow.CompressedInputStream(pyarrow.PythonFile(_Tally(inner, self), mode="r"), compression)
        self.entered = self.left = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            block = self._plain.read(len(buffer))
        except OSError as error:
            raise UserError(
                f"{self._name} is damaged or cut short",
                got=str(error).splitlines()[0],
                next_step="fetch the file again",
            ) from error
        self.left += len(block)
        if self.left > max(SLACK, self._most * self.entered):
            raise UserError(
                f"{self._name} expands absurdly",
                got=f"{self.left / 1e6:.0f} MB out of {self.entered / 1e6:.1f} MB",
                allowed=f"{self._most:g} times as much",
                next_step="if you trust the file, raise retriever.ingest.max_expansion",
            )
        buffer[: len(block)] = block
        return len(block)


class _Tally(io.RawIOBase):
    """Tells how much a decompressor has taken in."""

    def __init__(self, inner: Any, of: Expanded) -> None:
        self._inner, self._of = inner, of

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        block: bytes = self._inner.read(size)
        self._of.entered += len(block)
        return block


def plain(inner: Any, name: str, most: float) -> io.BufferedReader:
    """The plain bytes of a stream, by the suffix of its name."""
    suffix = Path(name).suffix.lower()
    if suffix not in COMPRESSIONS:
        return inner if isinstance(inner, io.BufferedReader) else io.BufferedReader(inner, BUFFER)
    return io.BufferedReader(Expanded(inner, COMPRESSIONS[suffix], name, most), BUFFER)


def lines(stream: io.BufferedReader, longest: int) -> Iterator[tuple[int, bytes | None]]:
    """Numbers and lines without their ends; None for one that is too long, which is passed over unread."""
    number = 0
    while line := stream.readline(longest + 1):
        number += 1
        if len(line) <= longest or line.endswith(b"\n"):
            yield number, line
            continue
        while (rest := stream.readline(BUFFER)) and not rest.endswith(b"\n"):
            pass
        yield number, None
