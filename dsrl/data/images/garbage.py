"""Pictures that no result refers to any more."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from dsrl.data.images.store import MADE, ImageStore

COLUMN = "images"


def referred(folders: Iterable[Path]) -> set[str]:
    """Paths of the pictures, below the store's, that samples and rejected candidates of these entries have."""
    import pyarrow.parquet

    found: set[str] = set()
    for path in (path for folder in folders for path in folder.glob("*.parquet")):
        table = pyarrow.parquet.ParquetFile(path)
        if COLUMN in table.schema_arrow.names:
            for batch in table.iter_batches(columns=[COLUMN]):
                found.update(batch.column(COLUMN).flatten().field("path").unique().to_pylist())
    return found


def unused(store: ImageStore, kept: set[str], before: float) -> list[Path]:
    """Files of pictures that aren't among those to be kept and weren't used since `before`, a Unix time; what a killed
    process left half-written among them. A run at work has pictures of which no entry knows yet."""
    files = (path for path in store.folder.glob("[0-9a-f][0-9a-f]/*") if path.is_file())
    others = (path for path in files if f"{path.parent.name}/{path.name}" not in kept)
    return sorted(path for path in others if path.stat().st_mtime < before)


def remove(store: ImageStore, files: Iterable[Path]) -> None:
    """The files, and the notes of which pictures they were made."""
    for path in files:
        path.unlink(missing_ok=True)
    for note in _idle_notes(store):
        note.unlink(missing_ok=True)


def _idle_notes(store: ImageStore) -> Iterator[Path]:
    for note in (store.folder / MADE).glob("*.json"):
        if not (store.folder / json.loads(note.read_text(encoding="utf-8"))["path"]).is_file():
            yield note
