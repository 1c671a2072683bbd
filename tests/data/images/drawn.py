"""Pictures as they come: drawn here, in whatever form a test wants."""

import io
from typing import Any

from PIL import Image

WIDE = (40, 20)


def halves(mode: str = "RGB", size: tuple[int, int] = WIDE) -> Image.Image:
    """The left half red, the right one blue."""
    picture = Image.new("RGB", size, (220, 20, 20))
    picture.paste((20, 20, 220), (size[0] // 2, 0, *size))
    return picture.convert(mode, palette=Image.Palette.ADAPTIVE)


def file(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """The picture as a file."""
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    """The picture in a file, decoded."""
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture
