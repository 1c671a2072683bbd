"""Pictures out of the cells of a data set: files beside it, bytes, base64, or what `datasets` makes of them."""

import base64
import binascii
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dsrl.data.images.preprocess import Unfit

DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,")
LEAST_BASE64 = 200
"""Characters of base64 that make up the smallest picture; a shorter text is a path."""


def listed(cell: Any) -> list[Any]:
    """The pictures of a cell, one by one and unread: none for an empty one."""
    if isinstance(cell, (list, tuple)):
        return [one for each in cell for one in listed(each)]
    return [] if cell is None or (isinstance(cell, (str, bytes)) and not cell) else [cell]


def read(one: Any, folder: Path | None) -> bytes:
    """A picture's file. A path begins at `folder`. Raises `Unfit` for one that isn't there or is no picture at all."""
    if isinstance(one, Mapping):
        one = one.get("bytes") or one.get("path")
    if isinstance(one, bytes):
        return one
    if not isinstance(one, str):
        raise Unfit("no image", f"{type(one).__name__} {str(one)[:40]!r} where a path, bytes or base64 should be")
    if (found := DATA_URL.match(one)) or len(one) >= LEAST_BASE64:
        return _decoded(one[found.end() if found else 0 :])
    return _read(one, folder)


def file(one: Any, folder: Path | None) -> Path | None:
    """The file that holds a picture, there or not; None where the cell itself holds it."""
    if isinstance(one, Mapping):
        one = None if one.get("bytes") else one.get("path")
    named = isinstance(one, str) and not DATA_URL.match(one) and len(one) < LEAST_BASE64
    return _place(one, folder) if named else None


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise Unfit("broken image", f"neither a path nor base64: {text[:40]!r}...") from error


def _read(name: str, folder: Path | None) -> bytes:
    path = _place(name, folder)
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unfit("missing image", f"{path}: {error.strerror or error}") from error


def _place(name: str, folder: Path | None) -> Path:
    return (folder or Path()) / Path(name).expanduser()
