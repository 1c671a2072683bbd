"""Exact deduplication of texts, in a SQLite file: memory doesn't grow with the corpus."""

import hashlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from dsrl.core.digest import normalised


class SeenTexts:
    """A set of texts, compared without case and spacing. About 30 bytes of disk per text."""

    def __init__(self, path: Path | None = None) -> None:
        """Open or create the file; None: a temporary one, which SQLite deletes when it is closed."""
        # corpora are read in whichever thread is free, one at a time
        self._database = sqlite3.connect(path or "", check_same_thread=False, isolation_level=None)
        # a file that a killed process left half-written is never opened again, so nothing needs to be synced
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("CREATE TABLE IF NOT EXISTS seen (digest BLOB PRIMARY KEY) WITHOUT ROWID")

    def add(self, texts: Sequence[str]) -> list[bool]:
        """Add the texts; True for those that were neither in the set nor earlier in the list."""
        insert = "INSERT OR IGNORE INTO seen VALUES (?)"
        digests = [hashlib.blake2b(normalised(text).encode(), digest_size=16).digest() for text in texts]
        self._database.execute("BEGIN")
        added = [self._database.execute(insert, (digest,)).rowcount == 1 for digest in digests]
        self._database.execute("COMMIT")
        return added

    def __len__(self) -> int:
        (count,) = self._database.execute("SELECT count(*) FROM seen").fetchone()
        return int(count)

    def close(self) -> None:
        self._database.close()
