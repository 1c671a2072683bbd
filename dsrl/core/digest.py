"""Content hashes: ids of samples and requests, keys of stages, fingerprints of files."""

import hashlib
import json
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from dsrl.core.resources import cache

MIN_CACHED_BYTES = 1 << 20
"""Hashing a smaller file takes no longer than looking its digest up."""
MIN_AGE_NS = 2_000_000_000
"""A file that changed more recently may change again within the resolution of its timestamps: it is not cached."""
NUM_THREADS = 4
"""hashlib releases the GIL; files of a folder are hashed in parallel."""
MISSING = "missing"
NOT_PART_OF_A_MODEL = ("*.md", "LICENSE*", "pretraining*")
"""Files of a model folder that no program reads; hidden files and `__pycache__` are left out as well."""


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: the text that is hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any, length: int = 16) -> str:
    """The first `length` hexadecimal digits of the sha256 of a JSON-like value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:length]


def normalised(text: str) -> str:
    """Lower case and single spaces."""
    return " ".join(text.lower().split())


def text_digest(text: str) -> str:
    """The digest by which texts are compared across data sets (leakage, duplicates); ignores case and spacing."""
    return hashlib.sha256(normalised(text).encode()).hexdigest()[:16]


def content_key(text: str, images: Sequence[str]) -> str:
    """`text_digest` combined with image digests: the same words about another image are another question."""
    return digest([text_digest(text), list(images)]) if images else text_digest(text)


def file_digest(path: Path) -> str:
    """The first 32 hexadecimal digits of a file's sha256; remembered for large files until they change."""
    return file_digests([path])[0]


def file_digests(paths: Sequence[Path], *, min_cached_bytes: int = MIN_CACHED_BYTES) -> list[str]:
    """The digest of each file. Raises OSError for a missing file.

    Digests are cached in the user's cache folder by path, size, inode, mtime and ctime, so that a file that has not
    changed is not read again.
    """
    states = [_file_state(path) for path in paths]
    large = {state[0]: state for state in states if state[1] >= min_cached_bytes}
    known = _cached_digests(large) if large else {}

    def hash_file(state: "_FileState") -> str:
        return known.get(state[0]) or _hash_file(Path(state[0]))

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        digests = list(pool.map(hash_file, states))
    by_path = {state[0]: value for state, value in zip(states, digests, strict=True)}
    _cache_digests([(*state, by_path[path]) for path, state in large.items() if path not in known])
    return digests


def folder_digest(folder: Path, patterns: tuple[str, ...] = ("*",)) -> str:
    """One digest over the names and contents of the files in `folder` that match any of the patterns."""
    files = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    return digest([[path.name, value] for path, value in zip(files, file_digests(files), strict=True)])


def model_digest(folder: Path) -> str:
    """One digest over all files of a model folder but those in `NOT_PART_OF_A_MODEL`: weights, configuration, tokenizer
    and any code."""
    relative = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    files = {
        name.as_posix(): path
        for name, path in relative.items()
        if not any(part.startswith(".") or part == "__pycache__" for part in name.parts)
        if not any(name.match(pattern) for pattern in NOT_PART_OF_A_MODEL)
    }
    names = sorted(files)
    return digest([names, file_digests([files[name] for name in names])])


_FileState = tuple[str, int, int, int, int]
"""(path, size, inode, mtime in ns, ctime in ns). The ctime also changes when somebody sets the mtime back."""


def _file_state(path: Path) -> _FileState:
    stat = path.stat()
    return str(path.absolute()), stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def sampled_digest(path: Path) -> str | None:
    """How the first store entries recorded files over 64 MiB: the digest of their size and of 16 blocks of 1 MiB. None
    for smaller files."""
    block, size = 1 << 20, path.stat().st_size
    if size <= 64 * block:
        return None
    hasher = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for number in range(16):
            file.seek((size - block) * number // 15)
            hasher.update(file.read(block))
    return hasher.hexdigest()[:32]


def _open_cache() -> sqlite3.Connection:
    folder = cache()
    folder.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(folder / "file_digests.sqlite", timeout=10)
    connection.execute(
        "CREATE TABLE IF NOT EXISTS file_digests "
        "(path TEXT PRIMARY KEY, size INTEGER, inode INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, digest TEXT)"
    )
    return connection


def _cached_digests(states: dict[str, _FileState]) -> dict[str, str]:
    """Path -> digest of the files whose state is as cached. A cache that can't be read counts as empty."""
    with suppress(OSError, sqlite3.Error), closing(_open_cache()) as connection:
        query = "SELECT path, size, inode, mtime_ns, ctime_ns, digest FROM file_digests WHERE path = ?"
        rows = (connection.execute(query, (path,)).fetchone() for path in states)
        return {row[0]: row[5] for row in rows if row is not None and row[:5] == states[row[0]]}
    return {}


def _cache_digests(entries: Sequence[tuple[str, int, int, int, int, str]]) -> None:
    """A cache that can't be written only costs reading the files again."""
    settled = [entry for entry in entries if max(entry[3], entry[4]) < time.time_ns() - MIN_AGE_NS]
    if settled:
        with suppress(OSError, sqlite3.Error), closing(_open_cache()) as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO file_digests VALUES (?, ?, ?, ?, ?, ?)", settled)
