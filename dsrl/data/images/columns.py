"""Image columns of a data set: cells with file paths, bytes, base64, or the objects that `datasets` returns."""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsrl.core.digest import MISSING, file_digests
from dsrl.data.fields import lookup
from dsrl.data.images.preprocess import UnusableImage, open_image
from dsrl.data.images.store import Gallery, map_in_threads
from dsrl.data.sample import Image

DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,")
MIN_BASE64_LENGTH = 200
"""Characters of base64 that hold the smallest image; a shorter text is a path."""

ImageRow = Mapping[str, Any]


@dataclass(frozen=True)
class ImageColumns:
    names: tuple[str, ...]
    """Empty: the data set has no images."""
    root: Path | None
    """Folder to which paths are relative."""

    def cells(self, row: ImageRow) -> list[Any]:
        """The images of a row, unread."""
        return [image for name in self.names for image in flatten_cell(lookup(row, name))]

    def store_images(self, row: ImageRow, gallery: Gallery) -> tuple[Image, ...]:
        """Preprocess and store the images of a row. Raises `UnusableImage`."""
        return tuple(gallery.put(read_image(cell, self.root)) for cell in self.cells(row))

    def store_all(self, rows: Iterable[ImageRow], gallery: Gallery) -> list[tuple[Image, ...] | UnusableImage]:
        """`store_images` for all rows in parallel; a row that fails gives its exception."""

        def store(row: ImageRow) -> tuple[Image, ...] | UnusableImage:
            try:
                return self.store_images(row, gallery)
            except UnusableImage as fault:
                return fault

        return list(map_in_threads(store, rows))

    def find_fault(self, row: ImageRow) -> str | None:
        """What is wrong with the images of a row; None if all can be opened."""
        try:
            for cell in self.cells(row):
                open_image(read_image(cell, self.root))
        except UnusableImage as fault:
            return f"{fault.reason}: {fault}"
        return None

    def files(self, rows: Sequence[ImageRow]) -> list[Path]:
        """The distinct files that rows name, in order. Cells that hold the image itself name none."""
        paths = (image_path(cell, self.root) for row in rows for cell in self.cells(row))
        return list(dict.fromkeys(path for path in paths if path is not None))


def flatten_cell(cell: Any) -> list[Any]:
    """The images of a cell, unread; none for an empty cell."""
    if isinstance(cell, (list, tuple)):
        return [image for element in cell for image in flatten_cell(element)]
    return [] if cell is None or (isinstance(cell, (str, bytes)) and not cell) else [cell]


def read_image(cell: Any, folder: Path | None) -> bytes:
    """The encoded bytes of one image; a path is relative to `folder`. Raises `UnusableImage`."""
    if isinstance(cell, Mapping):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes):
        return cell
    if not isinstance(cell, str):
        raise UnusableImage("no image", f"{type(cell).__name__} {str(cell)[:40]!r}, expected a path, bytes or base64")
    if (prefix := DATA_URL.match(cell)) or len(cell) >= MIN_BASE64_LENGTH:
        encoded = cell[prefix.end() if prefix else 0 :]
        try:
            return base64.b64decode(encoded, validate=True)
        except binascii.Error as error:
            raise UnusableImage("broken image", f"neither a path nor base64: {encoded[:40]!r}...") from error
    path = _resolve(cell, folder)
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnusableImage("missing image", f"{path}: {error.strerror or error}") from error


def image_path(cell: Any, folder: Path | None) -> Path | None:
    """The file that a cell names, whether or not it exists; None if the cell holds the image itself."""
    if isinstance(cell, Mapping):
        cell = None if cell.get("bytes") else cell.get("path")
    is_path = isinstance(cell, str) and not DATA_URL.match(cell) and len(cell) < MIN_BASE64_LENGTH
    return _resolve(cell, folder) if is_path else None


def image_file_digests(paths: Sequence[Path]) -> list[str]:
    """The digest of each file, `missing` for one that does not exist. All are cached, however small: a hundred thousand
    images on a slow disk are read once."""
    existing = [path for path in paths if path.is_file()]
    digests = dict(zip(existing, file_digests(existing, min_cached_bytes=0), strict=True))
    return [digests.get(path, MISSING) for path in paths]


def _resolve(name: str, folder: Path | None) -> Path:
    return (folder or Path()) / Path(name).expanduser()
