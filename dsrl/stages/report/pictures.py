"""Pictures of samples on the page: thumbnails as data URLs, each once, as many as there is room for."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsrl.data.images import ImageStore, map_in_threads
from dsrl.data.sample import Image

FORM, QUALITY = "WEBP", 82
"""All browsers show it; half as large as JPEG, and without its shadows around the lines of a drawing."""


@dataclass
class Pictures:
    """What the page shows of the pictures, or says of those that it doesn't show."""

    store: ImageStore
    side: int
    """Longest side of a thumbnail, in pixels; 0: none is shown."""
    room: int
    """Characters that may still be added."""
    urls: list[str] = field(default_factory=list)
    _places: dict[str, int] = field(default_factory=dict)
    _faults: dict[str, str] = field(default_factory=dict)

    def take(self, images: Iterable[Image]) -> None:
        """Makes thumbnails in this order until there is no room left; several at the same time."""
        new = list({image.digest: image for image in images if image.digest not in self._places}.values())
        if self.side == 0 or self.room <= 0:
            return
        for image, made in zip(new, map_in_threads(self._made, new), strict=False):
            if made.startswith("data:"):
                self._places[image.digest] = len(self.urls)
                self.urls.append(made)
                self.room -= len(made)
            else:
                self._faults[image.digest] = made
            if self.room <= 0:
                return

    def shown(self, images: Sequence[Image]) -> list[list[Any]]:
        """For each picture its number among the URLs, or why it isn't there, with width and height."""
        return [[self._place(image), image.width, image.height] for image in images]

    def drawn(self, images: Sequence[Image]) -> list[tuple[str, str]]:
        """For each picture its URL, or an empty one with the reason why it isn't there."""
        places = [self._place(image) for image in images]
        return [("", place) if isinstance(place, str) else (self.urls[place], "") for place in places]

    def _place(self, image: Image) -> int | str:
        found = self._places.get(image.digest)
        left = f"not on this page, to keep it small: images/{image.path}"
        return self._faults.get(image.digest, left) if found is None else found

    def _made(self, image: Image) -> str:
        """The thumbnail's URL, or what is wrong."""
        path = self.store.path(image)
        if not path.is_file():
            return f"no longer in the store: images/{image.path}"
        try:
            return thumbnail(path, self.side)
        except OSError as error:
            return f"can't be read: images/{image.path} ({error})"


def thumbnail(path: Path, side: int) -> str:
    """A data URL of the picture, no side longer than this; smaller ones keep their size. Raises `OSError` for a file
    that is no picture."""
    from PIL import Image as Pillow

    with Pillow.open(path) as picture:
        picture.draft("RGB", (side, side))
        small = picture.convert("RGB")
    small.thumbnail((side, side))
    out = io.BytesIO()
    small.save(out, FORM, quality=QUALITY)
    return f"data:image/{FORM.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"
