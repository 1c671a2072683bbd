"""Write rows as Parquet files of bounded size, named as on the hub, with few rows in memory."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow

ROWS_PER_GROUP = 100
"""Rows per row group: what a viewer reads at once, with images."""
MAX_BYTES = 500_000_000
"""Bytes after which the next file starts."""


def write_split(folder: Path, split: str, rows: Iterable[dict[str, Any]], schema: "pyarrow.Schema") -> int:
    """Write `<split>-00000-of-00002.parquet` and so on. Returns the number of rows."""
    parts: list[Path] = []
    waiting, written = iter(rows), 0
    first = list(islice(waiting, ROWS_PER_GROUP))
    while first or not parts:
        parts.append(folder / f".{split}-{len(parts):05d}")
        count, first = _part(parts[-1], first, waiting, schema)
        written += count
    for number, part in enumerate(parts):
        part.rename(folder / f"{split}-{number:05d}-of-{len(parts):05d}.parquet")
    return written


def _part(
    path: Path, batch: list[dict[str, Any]], waiting: Iterator[dict[str, Any]], schema: "pyarrow.Schema"
) -> tuple[int, list[dict[str, Any]]]:
    """Write one file. Returns the number of its rows, and the first rows of the next file."""
    import pyarrow
    import pyarrow.parquet

    written = 0
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while batch and (written == 0 or path.stat().st_size < MAX_BYTES):
            writer.write_table(pyarrow.Table.from_pylist(batch, schema=schema))
            written += len(batch)
            batch = list(islice(waiting, ROWS_PER_GROUP))
    return written, batch
