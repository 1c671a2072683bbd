"""Content hashes: the ids of samples and requests, the keys of stages, the fingerprints of files."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BLOCK = 1 << 20
WHOLE_FILE_LIMIT = 64 * BLOCK
NUM_BLOCKS = 16


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces, the one spelling that is hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any, length: int = 16) -> str:
    """The first `length` hexadecimal digits of the sha256 of a JSON-like value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:length]


def normalised(text: str) -> str:
    """Lower case and single spaces: two texts that are equal after this share their content."""
    return " ".join(text.lower().split())


def text_digest(text: str) -> str:
    """The digest by which texts are compared across data sets (leakage, duplicates), blind to case and spacing."""
    return hashlib.sha256(normalised(text).encode()).hexdigest()[:16]


def content_key(text: str, images: Sequence[str]) -> str:
    """As `text_digest`, of a text and the digests of its pictures: the same words about another picture are another
    question."""
    return digest([text_digest(text), list(images)]) if images else text_digest(text)


def file_digest(path: Path) -> str:
    """Sha256 of a file; over 64 MiB, of its size and sixteen evenly spaced blocks of 1 MiB (weights of many GB)."""
    size = path.stat().st_size
    hasher = hashlib.sha256(str(size).encode() if size > WHOLE_FILE_LIMIT else b"")
    with path.open("rb") as file:
        if size <= WHOLE_FILE_LIMIT:
            while block := file.read(BLOCK):
                hasher.update(block)
        else:
            for number in range(NUM_BLOCKS):
                file.seek((size - BLOCK) * number // (NUM_BLOCKS - 1))
                hasher.update(file.read(BLOCK))
    return hasher.hexdigest()[:32]


def folder_digest(folder: Path, patterns: tuple[str, ...] = ("*",)) -> str:
    """One digest over the names and contents of the files in `folder` that match any of the patterns."""
    files = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    return digest([[path.name, file_digest(path)] for path in files])
