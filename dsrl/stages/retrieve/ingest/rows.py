"""Rows as documents: what can't be read as one is told in words, never guessed at."""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsrl.core.errors import UserError
from dsrl.stages.retrieve.ingest.records import Document, IngestReport, Malformed
from dsrl.stages.retrieve.ingest.streams import lines

FOREIGN = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PK\x03\x04": "a zip archive", b"\x1f\x8b": "gzip"}
"""How files begin that are no UTF-8 text, whatever their name says."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Fields:
    """Where a row has its text and its name."""

    text: str
    id: str

    def document(self, row: Any, default: str) -> Document | str:
        """The document of a row, or what is wrong with it."""
        if not isinstance(row, Mapping):
            return f"not an object but {json.dumps(row, ensure_ascii=False)[:60]}"
        text = row.get(self.text)
        if not isinstance(text, str):
            return f"no text under `{self.text}`; its fields: {', '.join(map(str, row))[:200] or 'none'}"
        if not _encodable(text):
            return "half a character (a lone surrogate) in its text"
        name = row.get(self.id)
        return Document(str(name) if isinstance(name, (str, int)) and _encodable(str(name)) else default, text)


def jsonl_rows(
    stream: io.BufferedReader, file: str, name: str, fields: Fields, max_bytes: int
) -> Iterator[Document | Malformed]:
    """One document a line."""
    prefix = f"{name}:" if name else ""
    for number, line in lines(stream, max_bytes):
        if number == 1 and line:
            line = begun(line, file)
        if line is None:
            yield Malformed(file, number, f"longer than {max_bytes} bytes (retriever.ingest.max_document_bytes)")
        elif line.strip():
            found = parsed(line, fields, f"{prefix}{number}")
            yield Malformed(file, number, found) if isinstance(found, str) else found


def parsed(line: bytes, fields: Fields, default: str) -> Document | str:
    """The document of a line of JSON, or what is wrong with it."""
    try:
        return fields.document(json.loads(line), default)
    except UnicodeDecodeError as error:
        return f"not UTF-8 (byte {error.object[error.start]:#04x} at {error.start})"
    except (ValueError, RecursionError):
        return f"not JSON: {line[:60].decode(errors='replace').strip()}"


def text_row(stream: io.BufferedReader, file: str, name: str, max_bytes: int) -> Iterator[Document | Malformed]:
    """A whole file as one document."""
    content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        yield Malformed(file, 1, f"longer than {max_bytes} bytes (retriever.ingest.max_document_bytes)")
        return
    try:
        yield Document(name, begun(content, file).decode())
    except UnicodeDecodeError as error:
        yield Malformed(file, 1, f"not UTF-8 (byte {content[error.start]:#04x} at {error.start})")


def parquet_rows(path: Path, name: str, fields: Fields, report: IngestReport) -> Iterator[Document | Malformed]:
    """One document a row, few rows in memory at a time."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path, memory_map=True) as table:
            columns = table.schema_arrow.names
            if fields.text not in columns:
                raise UserError(
                    f"{path} has no column `{fields.text}`",
                    allowed=columns,
                    next_step="give retriever.ingest.field=...",
                )
            wanted = [column for column in (fields.text, fields.id) if column in columns]
            number = 0
            for batch in table.iter_batches(ROWS_AT_ONCE, columns=wanted, use_threads=False):
                report.bytes = max(report.bytes, round(path.stat().st_size * number / table.metadata.num_rows))
                for row in batch.to_pylist():
                    number += 1
                    found = fields.document(row, f"{name}:{number}" if name else str(number))
                    yield Malformed(str(path), number, found) if isinstance(found, str) else found
    except pyarrow.ArrowException as error:
        raise UserError(f"{path} is not a whole Parquet file", got=str(error).splitlines()[0]) from error


def begun(content: bytes, file: str) -> bytes:
    """The beginning of a file without its byte order mark. Raises `UserError` for one that is no UTF-8 text at all."""
    for mark, kind in FOREIGN.items():
        if content.startswith(mark):
            raise UserError(f"{file} is not UTF-8 text", got=kind, next_step="convert it, or give it its true suffix")
    return content.removeprefix(BYTE_ORDER_MARK)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
