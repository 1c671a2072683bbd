"""Images stored by content, once for all runs that share a store, and the removal of unused ones."""

import base64
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dsrl.core.component import to_key_value
from dsrl.data.images.preprocess import Pixels
from dsrl.data.sample import Image

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

MADE = "made"
"""Subfolder with one JSON file per (original image, size): the stored image made from it."""
NUM_THREADS = 8
"""Pillow releases the GIL, and slow disks are waited for in parallel."""
MEDIA_TYPES = {"png": "image/png", "jpg": "image/jpeg"}
IMAGES_COLUMN = "images"
THUMBNAIL_SIDE = 32
MAX_THUMBNAIL_DIFFERENCE = 24
"""Of 255, per pixel and channel. JPEG compression and rescaling change thumbnails by less, a shape in another colour by
more. Perceptual hashes (pHash, dHash) are no alternative: they ignore colour."""
Argument = TypeVar("Argument")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ImageStore:
    """`<folder>/<first two digits>/<digest>.png|jpg`; each file is written once and never changed."""

    folder: Path

    def put(self, data: bytes, pixels: Pixels) -> Image:
        """Preprocess and store an image, unless that was done before. Raises `UnusableImage`."""
        made = self.folder / MADE / f"{_digest(data)}-{pixels.min_pixels}-{pixels.max_pixels}.json"
        if made.is_file():
            image = Image(**json.loads(made.read_text(encoding="utf-8")))
            if image.pixels is not None and self.path(image).is_file():
                os.utime(self.path(image))  # `dsrl gc` keeps what was used lately
                return image
        prepared = pixels.fit(data)
        digest = _digest(prepared.data)
        path = _relative_path(digest, prepared.suffix)
        if not (self.folder / path).is_file():
            _write_atomically(self.folder / path, prepared.data)
        image = Image(digest=digest, path=path, width=prepared.width, height=prepared.height, pixels=prepared.pixels)
        _write_atomically(made, json.dumps(to_key_value(image)).encode())
        return image

    def path(self, image: Image) -> Path:
        return self.folder / image.path

    def thumbnail(self, image: Image) -> "NDArray[numpy.int16]":
        """The image scaled to (THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3), for `looks_same`."""
        import numpy
        import PIL.Image

        size = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
        with PIL.Image.open(self.path(image)) as opened:
            return numpy.asarray(opened.convert("RGB").resize(size, PIL.Image.Resampling.BOX), dtype=numpy.int16)

    def find(self, digest: str) -> Path:
        """The file of an image. Raises `FileNotFoundError` if it is not stored."""
        for suffix in MEDIA_TYPES:
            path = self.folder / _relative_path(digest, suffix)
            if path.is_file():
                return path
        raise FileNotFoundError(f"no image {digest} in {self.folder}")

    def data_url(self, digest: str) -> str:
        path = self.find(digest)
        return f"data:{MEDIA_TYPES[path.suffix[1:]]};base64,{base64.b64encode(path.read_bytes()).decode()}"


@dataclass(frozen=True)
class Gallery:
    """The image store of a run together with the size at which its task shows images."""

    store: ImageStore
    pixels: Pixels

    def put(self, data: bytes) -> Image:
        return self.store.put(data, self.pixels)


def looks_same(one: "NDArray[numpy.int16]", other: "NDArray[numpy.int16]") -> bool:
    """Whether two thumbnails show the same image, in whatever encoding, quality and size."""
    return int(abs(one - other).max()) <= MAX_THUMBNAIL_DIFFERENCE


def map_in_threads(work: Callable[[Argument], Result], arguments: Iterable[Argument]) -> Iterator[Result]:
    """Yield results in order, computed by `NUM_THREADS` threads that run at most a few items ahead."""
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        pending = []
        for argument in arguments:
            pending.append(pool.submit(work, argument))
            if len(pending) > 2 * NUM_THREADS:
                yield pending.pop(0).result()
        for future in pending:
            yield future.result()


def referenced_images(entries: Iterable[Path]) -> set[str]:
    """Paths, relative to the image store, of the images in the Parquet tables of these store entries."""
    import pyarrow.parquet

    paths: set[str] = set()
    for file in (file for entry in entries for file in entry.glob("*.parquet")):
        table = pyarrow.parquet.ParquetFile(file)
        if IMAGES_COLUMN in table.schema_arrow.names:
            for batch in table.iter_batches(columns=[IMAGES_COLUMN]):
                paths.update(batch.column(IMAGES_COLUMN).flatten().field("path").unique().to_pylist())
    return paths


def unused_images(store: ImageStore, referenced: set[str], before: float) -> list[Path]:
    """Image files, partial ones of killed processes included, that are not referenced and were last used before this
    Unix time. The time protects images of a run in progress, which no entry references yet."""
    files = (path for path in store.folder.glob("[0-9a-f][0-9a-f]/*") if path.is_file())
    others = (path for path in files if f"{path.parent.name}/{path.name}" not in referenced)
    return sorted(path for path in others if path.stat().st_mtime < before)


def remove_images(store: ImageStore, files: Iterable[Path]) -> None:
    """Delete the files, and the records in `made/` that point to missing images."""
    for path in files:
        path.unlink(missing_ok=True)
    for made in (store.folder / MADE).glob("*.json"):
        if not (store.folder / json.loads(made.read_text(encoding="utf-8"))["path"]).is_file():
            made.unlink(missing_ok=True)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _relative_path(digest: str, suffix: str) -> str:
    return f"{digest[:2]}/{digest}.{suffix}"


def _write_atomically(path: Path, data: bytes) -> None:
    """Safe when several processes write the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    scratch.write_bytes(data)
    scratch.replace(path)
