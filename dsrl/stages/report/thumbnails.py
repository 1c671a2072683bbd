"""Thumbnails of samples' images as data URLs, each once, until the page's budget for images is used up."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsrl.data.images import ImageStore, map_in_threads
from dsrl.data.sample import Image

FORMAT, QUALITY = "WEBP", 82
"""All browsers show it; half as large as JPEG, and without artefacts around the lines of a drawing."""


@dataclass
class Thumbnails:
    """The images on the page, and why others are missing."""

    store: ImageStore
    side: int
    """Longest side, in pixels; 0 shows no images."""
    budget: int
    """Characters that may still be added."""
    urls: list[str] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)
    _faults: dict[str, str] = field(default_factory=dict)

    def add(self, images: Iterable[Image]) -> None:
        """Make thumbnails in this order, several at a time, until the budget is used up."""
        new = list({image.digest: image for image in images if image.digest not in self._numbers}.values())
        if self.side == 0 or self.budget <= 0:
            return
        for image, url in zip(new, map_in_threads(self._url_or_fault, new), strict=False):
            if url.startswith("data:"):
                self._numbers[image.digest] = len(self.urls)
                self.urls.append(url)
                self.budget -= len(url)
            else:
                self._faults[image.digest] = url
            if self.budget <= 0:
                return

    def numbers_of(self, images: Sequence[Image]) -> list[list[Any]]:
        """For each image its number among the URLs, or why it is missing, with width and height."""
        return [[self._number_or_fault(image), image.width, image.height] for image in images]

    def urls_of(self, images: Sequence[Image]) -> list[tuple[str, str]]:
        """For each image its URL and an empty reason, or an empty URL and the reason why it is missing."""
        numbers = [self._number_or_fault(image) for image in images]
        return [("", number) if isinstance(number, str) else (self.urls[number], "") for number in numbers]

    def _number_or_fault(self, image: Image) -> int | str:
        number = self._numbers.get(image.digest)
        omitted = f"left out to keep the page small: images/{image.path}"
        return self._faults.get(image.digest, omitted) if number is None else number

    def _url_or_fault(self, image: Image) -> str:
        path = self.store.path(image)
        if not path.is_file():
            return f"no longer in the store: images/{image.path}"
        try:
            return data_url(path, self.side)
        except OSError as error:
            return f"can't be read: images/{image.path} ({error})"


def data_url(path: Path, side: int) -> str:
    """The image as a data URL, shrunk so that no side is longer than `side` pixels. Raises `OSError` if the file is not
    an image."""
    from PIL import Image as Pillow

    with Pillow.open(path) as picture:
        picture.draft("RGB", (side, side))
        small = picture.convert("RGB")
    small.thumbnail((side, side))
    out = io.BytesIO()
    small.save(out, FORMAT, quality=QUALITY)
    return f"data:image/{FORMAT.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"
