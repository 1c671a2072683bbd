"""Parses rows of JSONL, text and Parquet files as documents. Anything else is reported, never guessed at."""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsrl.core.errors import UserError
from dsrl.stages.retrieve.ingest.records import Document, IngestReport, MalformedRow

OTHER_FORMATS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PK\x03\x04": "a zip archive", b"\x1f\x8b": "gzip"}
"""First bytes of files that are not UTF-8 text, whatever their suffix."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
PARQUET_BATCH = 256
SKIP_BYTES = 1 << 17


@dataclass(frozen=True)
class RowFields:
    """Names of the fields of a row that contain the text and the id."""

    text: str
    id: str

    def parse(self, row: Any, default_id: str) -> Document | str:
        """The document of a row, or a description of what is wrong with it."""
        if not isinstance(row, Mapping):
            return f"not an object but {json.dumps(row, ensure_ascii=False)[:60]}"
        text = row.get(self.text)
        if not isinstance(text, str):
            return f"no text in field `{self.text}`; its fields: {', '.join(map(str, row))[:200] or 'none'}"
        if not _is_encodable(text):
            return "its text contains half a surrogate pair"
        name = row.get(self.id)
        usable = isinstance(name, (str, int)) and _is_encodable(str(name))
        return Document(str(name) if usable else default_id, text)

    def parse_json(self, line: bytes, default_id: str) -> Document | str:
        """As `parse`, for one line of JSON."""
        try:
            return self.parse(json.loads(line), default_id)
        except UnicodeDecodeError as error:
            return f"not UTF-8 (byte {error.object[error.start]:#04x} at {error.start})"
        except (ValueError, RecursionError):
            return f"not JSON: {line[:60].decode(errors='replace').strip()}"


def read_jsonl(
    stream: io.BufferedReader, file: str, name: str, fields: RowFields, max_bytes: int
) -> Iterator[Document | MalformedRow]:
    """One document per line; `name` and the line number stand in for a missing id."""
    prefix = f"{name}:" if name else ""
    number = 0
    while line := stream.readline(max_bytes + 1):
        number += 1
        if len(line) > max_bytes and not line.endswith(b"\n"):
            while (rest := stream.readline(SKIP_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield _too_long(file, number, max_bytes)
            continue
        if number == 1:
            line = check_beginning(line, file)
        if line.strip():
            parsed = fields.parse_json(line, f"{prefix}{number}")
            yield MalformedRow(file, number, parsed) if isinstance(parsed, str) else parsed


def read_text(stream: io.BufferedReader, file: str, name: str, max_bytes: int) -> Iterator[Document | MalformedRow]:
    """The whole file as one document."""
    content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        yield _too_long(file, 1, max_bytes)
        return
    try:
        yield Document(name, check_beginning(content, file).decode())
    except UnicodeDecodeError as error:
        yield MalformedRow(file, 1, f"not UTF-8 (byte {content[error.start]:#04x} at {error.start})")


def read_parquet(path: Path, name: str, fields: RowFields, report: IngestReport) -> Iterator[Document | MalformedRow]:
    """One document per row, with `PARQUET_BATCH` rows in memory at a time."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path, memory_map=True) as table:
            columns = table.schema_arrow.names
            if fields.text not in columns:
                raise UserError(
                    f"{path} has no column `{fields.text}`",
                    allowed=columns,
                    next_step="set retriever.ingest.field=COLUMN",
                )
            selected = [column for column in (fields.text, fields.id) if column in columns]
            number = 0
            for batch in table.iter_batches(PARQUET_BATCH, columns=selected, use_threads=False):
                report.bytes = max(report.bytes, round(path.stat().st_size * number / table.metadata.num_rows))
                for row in batch.to_pylist():
                    number += 1
                    parsed = fields.parse(row, f"{name}:{number}" if name else str(number))
                    yield MalformedRow(str(path), number, parsed) if isinstance(parsed, str) else parsed
    except pyarrow.ArrowException as error:
        raise UserError(f"{path} is not a complete Parquet file", got=str(error).splitlines()[0]) from error


def check_beginning(content: bytes, file: str) -> bytes:
    """Strip the byte order mark. Raises `UserError` if the first bytes are those of another format."""
    for mark, kind in OTHER_FORMATS.items():
        if content.startswith(mark):
            raise UserError(
                f"{file} is not UTF-8 text", got=kind, next_step="convert it, or give it the suffix of its format"
            )
    return content.removeprefix(BYTE_ORDER_MARK)


def _too_long(file: str, line: int, max_bytes: int) -> MalformedRow:
    return MalformedRow(file, line, f"longer than {max_bytes} bytes (retriever.ingest.max_document_bytes)")


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
