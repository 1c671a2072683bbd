"""Digests of many files, read once."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from dsrl.core.digest import digest, file_digest
from dsrl.core.resources import cache

MISSING = "missing"


def known_digests(paths: Sequence[Path]) -> list[str]:
    """The digest of each file. One is read again only where its size or time of change is new: a hundred thousand
    pictures on a slow disk are read once. `missing` stands for one that isn't there."""
    folders = sorted({str(path.parent.resolve()) for path in paths})
    note = cache() / "digests" / f"{digest(folders, 32)}.json"
    known: dict[str, list[str]] = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}
    found = {str(path): _looked_at(path, known.get(str(path))) for path in paths}
    if found != known:
        _keep(note, json.dumps(found))
    return [made for _, made in found.values()]


def _looked_at(path: Path, known: list[str] | None) -> list[str]:
    """State and digest of a file."""
    if not path.is_file():
        return ["", MISSING]
    stat = path.stat()
    state = f"{stat.st_size} {stat.st_mtime_ns}"
    return known if known is not None and known[0] == state else [state, file_digest(path)]


def _keep(note: Path, text: str) -> None:
    """Not where nothing can be written: then the files are read again next time."""
    with suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        scratch = note.with_suffix(f".{os.getpid()}")
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(note)
