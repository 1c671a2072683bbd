"""Pictures kept by their content, once for all runs that share a store."""

import base64
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dsrl.core.component import to_key_value
from dsrl.data.images.preprocess import Picture, Pixels
from dsrl.data.sample import Image

MADE = "made"
"""Subfolder that remembers which picture was made of which, at which size."""
AT_ONCE = 8
"""Pictures opened at the same time: Pillow works outside Python's lock, and slow disks are waited for together."""
TYPES = {"png": "image/png", "jpg": "image/jpeg"}
Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True)
class ImageStore:
    """`<folder>/<first two digits>/<digest>.png|jpg`; written once, never changed."""

    folder: Path

    def put(self, data: bytes, pixels: Pixels) -> Image:
        """The picture as models see it, made now unless that was done before. Raises `Unfit`."""
        note = self.folder / MADE / f"{_digest(data)}-{pixels.min_pixels}-{pixels.max_pixels}.json"
        if note.is_file():
            known = Image(**json.loads(note.read_text(encoding="utf-8")))
            if self.path(known).is_file():
                os.utime(self.path(known))  # `dsrl gc` keeps what was used lately
                return known
        image = self._kept(pixels.fit(data))
        _written(note, json.dumps(to_key_value(image)).encode())
        return image

    def path(self, image: Image) -> Path:
        """Where the picture is."""
        return self.folder / image.path

    def find(self, digest: str) -> Path:
        """The file of a picture that is known by its digest alone. Raises `FileNotFoundError` where there is none."""
        for suffix in TYPES:
            path = self.folder / _place(digest, suffix)
            if path.is_file():
                return path
        raise FileNotFoundError(f"no picture {digest} in {self.folder}")

    def url(self, digest: str) -> str:
        """The picture as a data URL."""
        path = self.find(digest)
        return f"data:{TYPES[path.suffix[1:]]};base64,{base64.b64encode(path.read_bytes()).decode()}"

    def _kept(self, picture: Picture) -> Image:
        digest = _digest(picture.data)
        place = _place(digest, picture.suffix)
        if not (self.folder / place).is_file():
            _written(self.folder / place, picture.data)
        return Image(digest=digest, path=place, width=picture.width, height=picture.height)


@dataclass(frozen=True)
class Gallery:
    """Where a run keeps the pictures of its task, and how large they are shown."""

    store: ImageStore
    pixels: Pixels

    def put(self, data: bytes) -> Image:
        """As `ImageStore.put`."""
        return self.store.put(data, self.pixels)


def side_by_side(work: Callable[[Given], Made], given: Iterable[Given]) -> Iterator[Made]:
    """The results in order, several worked on at the same time, and never many of them in memory."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        waiting = []
        for one in given:
            waiting.append(pool.submit(work, one))
            if len(waiting) > 2 * AT_ONCE:
                yield waiting.pop(0).result()
        for rest in waiting:
            yield rest.result()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _place(digest: str, suffix: str) -> str:
    return f"{digest[:2]}/{digest}.{suffix}"


def _written(path: Path, data: bytes) -> None:
    """Whole or not at all, whoever else writes the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    scratch.write_bytes(data)
    scratch.replace(path)
