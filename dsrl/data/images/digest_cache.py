"""Digests of many files, each read once."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from dsrl.core.digest import digest, file_digest
from dsrl.core.resources import cache

MISSING = "missing"


def cached_digests(paths: Sequence[Path]) -> list[str]:
    """The digest of each file, `missing` for one that does not exist. A file is read again only if its size or
    modification time changed."""
    folders = sorted({str(path.parent.resolve()) for path in paths})
    cache_file = cache() / "digests" / f"{digest(folders, 32)}.json"
    known: dict[str, list[str]] = json.loads(cache_file.read_text(encoding="utf-8")) if cache_file.is_file() else {}
    current = {str(path): _state_and_digest(path, known.get(str(path))) for path in paths}
    if current != known:
        with suppress(OSError):  # a read-only cache only costs reading the files again
            cache_file.parent.mkdir(parents=True, exist_ok=True)
            scratch = cache_file.with_suffix(f".{os.getpid()}")
            scratch.write_text(json.dumps(current), encoding="utf-8")
            scratch.replace(cache_file)
    return [value for _, value in current.values()]


def _state_and_digest(path: Path, known: list[str] | None) -> list[str]:
    if not path.is_file():
        return ["", MISSING]
    stat = path.stat()
    state = f"{stat.st_size} {stat.st_mtime_ns}"
    return known if known is not None and known[0] == state else [state, file_digest(path)]
