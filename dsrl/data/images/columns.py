"""Image columns of a data set: cells with file paths, bytes, base64, or the objects that `datasets` returns."""

import ast
import base64
import binascii
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from dsrl.core.digest import MISSING, file_digests
from dsrl.data.fields import has_field, lookup
from dsrl.data.images.preprocess import Pixels, UnusableImage, pillow_errors
from dsrl.data.images.store import Gallery, map_in_threads
from dsrl.data.sample import Image

DATA_URL = re.compile(r"data:[^,]{0,100};base64,\s*", re.IGNORECASE)
BASE64_START = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "Qk", "SUkq", "TU0A", "AAAAHGZ0eX", "AAAAIGZ0eX", "AAAADGpQ")
"""Base64 of the first bytes of PNG, JPEG, GIF, WebP, BMP, TIFF, AVIF and JPEG 2000."""
MIN_BASE64_LENGTH = 60
"""Characters. Shorter texts are paths."""
MAX_PATH_LENGTH = 4096
"""Characters. Longer texts are never paths."""
EMPTY_TEXTS = frozenset({"", "nan", "none", "null", "[]"})
"""What a missing image becomes in a CSV written by pandas."""
WRAPPERS = ("bytes", "path", "url", "image_url", "image")
"""Keys under which objects hold an image: those of `datasets`, and of chat messages."""

ImageRow = Mapping[str, Any]


@dataclass(frozen=True)
class ImageColumns:
    names: tuple[str, ...]
    """Empty: the data set has no images."""
    root: Path | None
    """Folder to which paths are relative."""

    def cells(self, row: ImageRow) -> list[Any]:
        """The images of a row, unread."""
        return [image for name in self.names if has_field(row, name) for image in flatten_cell(lookup(row, name))]

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

    def find_fault(self, row: ImageRow, pixels: Pixels | None = None) -> str | None:
        """What is wrong with the images of a row; None if a run can use them all."""
        try:
            for cell in self.cells(row):
                (pixels or Pixels()).fit(read_image(cell, self.root))
        except UnusableImage as fault:
            return f"{fault.reason}: {fault}"
        return None

    def files(self, rows: Sequence[ImageRow]) -> list[Path]:
        """The distinct files that rows name, in order. Cells that hold the image itself name none."""
        paths = (image_path(cell, self.root) for row in rows for cell in self.cells(row))
        return list(dict.fromkeys(path for path in paths if path is not None))


def flatten_cell(cell: Any) -> list[Any]:
    """The images of a cell, unread; none for an empty cell. A text such as `['a.png', 'b.png']` is a list."""
    if isinstance(cell, str) and cell.lstrip().startswith("[") and (elements := _parse_list(cell)) is not None:
        cell = elements
    if isinstance(cell, (list, tuple)):
        return [image for element in cell for image in flatten_cell(element)]
    return [] if _is_empty(cell) else [cell]


def _parse_list(text: str) -> list[Any] | None:
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return list(value) if isinstance(value, (list, tuple)) else None


def _is_empty(cell: Any) -> bool:
    if isinstance(cell, str):
        return cell.strip().lower() in EMPTY_TEXTS
    return cell is None or cell == b"" or (isinstance(cell, float) and math.isnan(cell))


def read_image(cell: Any, folder: Path | None) -> bytes:
    """The encoded bytes of one image; a path is relative to `folder`. Raises `UnusableImage`."""
    cell = _unwrap(cell)
    if isinstance(cell, (bytes, bytearray, memoryview)):
        return bytes(cell)
    if hasattr(cell, "save") and hasattr(cell, "mode"):  # an image of Pillow
        out = io.BytesIO()
        with pillow_errors(b""):
            cell.save(out, "PNG")
        return out.getvalue()
    if not isinstance(cell, (str, Path)):
        raise UnusableImage("no image", f"{_describe(cell)}, expected a path, bytes or base64")
    text = str(cell).strip()
    if text.lower().startswith(("http://", "https://")):
        raise UnusableImage("image on the web", f"{text[:80]}: images are not fetched, download them first")
    path = _as_path(text, folder)
    if path is None:
        return _decode_base64(text)
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnusableImage("missing image", f"{path}: {error.strerror or error}") from error


def image_path(cell: Any, folder: Path | None) -> Path | None:
    """The file that a cell names, whether or not it exists; None for a web address or an image in the cell itself."""
    cell = _unwrap(cell)
    if not isinstance(cell, (str, Path)) or str(cell).lower().startswith(("http://", "https://")):
        return None
    return _as_path(str(cell).strip(), folder)


def _unwrap(cell: Any) -> Any:
    """The image in an object such as `{bytes, path}` or `{type: image_url, image_url: {url}}`."""
    while isinstance(cell, Mapping):
        found = next((cell[key] for key in WRAPPERS if not _is_empty(cell.get(key))), None)
        if found is None:
            return cell
        cell = found
    return cell


def _describe(cell: Any) -> str:
    if isinstance(cell, Mapping):
        return f"an object with the keys {', '.join(map(str, cell)) or '(none)'}"
    return f"{type(cell).__name__} {str(cell)[:40]!r}"


def _as_path(text: str, folder: Path | None) -> Path | None:
    """The path that a text stands for; None for base64. A file that exists is a path, whatever its name looks like."""
    if DATA_URL.match(text) or len(text) > MAX_PATH_LENGTH:
        return None
    name = unquote(urlsplit(text).path) if text.lower().startswith("file://") else text
    path = (folder or Path()) / Path(name).expanduser()
    looks_encoded = len(text) >= MIN_BASE64_LENGTH and text.startswith(BASE64_START)
    return None if looks_encoded and not _exists(path) else path


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # the name is too long
        return False


def _decode_base64(text: str) -> bytes:
    """Decode base64 with or without a data URL's prefix, line breaks and padding, in either alphabet."""
    prefix = DATA_URL.match(text)
    encoded = "".join(text[prefix.end() if prefix else 0 :].split()).translate(str.maketrans("-_", "+/"))
    try:
        return base64.b64decode(encoded.rstrip("=") + "=" * (-len(encoded.rstrip("=")) % 4), validate=True)
    except binascii.Error as error:
        raise UnusableImage("broken image", f"neither a path nor base64: {text[:40]!r}...") from error


def image_file_digests(paths: Sequence[Path]) -> list[str]:
    """The digest of each file, `missing` for one that does not exist. All are cached, however small: a hundred thousand
    images on a slow disk are read once."""
    existing = [path for path in paths if path.is_file()]
    digests = dict(zip(existing, file_digests(existing, min_cached_bytes=0), strict=True))
    return [digests.get(path, MISSING) for path in paths]
