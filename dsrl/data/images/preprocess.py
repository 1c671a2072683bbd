"""Preprocess an image as it comes into the one that every model sees."""

import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from dsrl.core.component import Component, component
from dsrl.core.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image, Transpose

KEPT_FORMATS = {"PNG": "png", "JPEG": "jpg"}
"""Formats that every model and server reads -> file suffix; others are converted to PNG."""
MAX_OPENED_PIXELS = 400_000_000
"""Larger images are decompression bombs, or useless to a model."""
MAX_KEPT_BYTES = 3_700_000
"""Larger files are encoded anew: providers accept at most 5 MB of base64, and metadata or an appended video may have
any size."""
MAX_SIDE = 8000
"""Providers refuse images with a longer side."""
MAX_ASPECT_RATIO = 200
"""Qwen's processors refuse narrower images."""
EXIF_ORIENTATION = 0x0112
BACKGROUND = (255, 255, 255)
"""Behind transparent pixels."""


FILE_HINTS = {
    b"ftyphei": "HEIC, which is not supported: convert it to JPEG",
    b"ftypmif1": "HEIF, which is not supported: convert it to JPEG",
    b"<svg": "SVG, which is not supported: convert it to PNG",
    b"version https://git-lfs": "a Git LFS pointer: fetch the file with git lfs pull",
    b"<html": "an HTML page, probably an error page of a download",
    b"<!doctype html": "an HTML page, probably an error page of a download",
}
"""Bytes near the start of a file that Pillow can't identify -> what it is."""


class UnusableImage(Exception):
    """An image that can't be shown to a model. `reason` is short and countable, the message has the details."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class PreparedImage:
    """An encoded image as models see it."""

    data: bytes
    suffix: str
    width: int
    height: int
    pixels: str
    """Digest of the decoded pixels."""


@component("data.pixels")
class Pixels(Component):
    """The size to which images are scaled: the same in pass rates, rewriting, training and evaluation. The defaults are
    SynthRL's (paper, table 6)."""

    min_pixels: int = Field(default=262_144, gt=0)
    """Smaller images are enlarged to this many pixels (width times height)."""
    max_pixels: int = Field(default=1_003_520, gt=0)
    """Larger images are reduced to this many pixels."""

    @model_validator(mode="after")
    def _check_order(self) -> "Pixels":
        if self.min_pixels > self.max_pixels:
            raise UserError(
                "task.pixels: min_pixels is more than max_pixels",
                got=f"{self.min_pixels} > {self.max_pixels}",
                next_step="lower task.pixels.min_pixels or raise task.pixels.max_pixels",
            )
        return self

    def fit(self, data: bytes) -> PreparedImage:
        """Make an image upright, RGB, opaque and of the right size. A PNG or JPEG that needs no change is kept byte for
        byte. Raises `UnusableImage`."""
        with pillow_errors(data):
            image = open_image(data)
            orientation = _orientation(image)
            upright = image.transpose(orientation) if orientation is not None else image
            width, height = self.size(upright.width, upright.height)
            suffix = KEPT_FORMATS.get(image.format or "")
            unchanged = orientation is None and image.mode in ("RGB", "L") and (width, height) == image.size
            if suffix and unchanged and len(data) <= MAX_KEPT_BYTES:
                return PreparedImage(data, suffix, width, height, pixel_digest(image))
            rgb = _to_rgb(upright)
            if (width, height) != rgb.size:
                rgb = rgb.resize((width, height))
            out = io.BytesIO()
            rgb.save(out, "PNG", compress_level=1)
            return PreparedImage(out.getvalue(), "png", width, height, pixel_digest(rgb))

    def size(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) at which an image of this size is shown, with the same aspect ratio. Raises
        `UnusableImage` for an extreme ratio."""
        if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
            raise UnusableImage("narrow image", f"{width} x {height} pixels, aspect ratio above {MAX_ASPECT_RATIO}")
        target = min(max(width * height, self.min_pixels), self.max_pixels)
        scale = min((target / (width * height)) ** 0.5, MAX_SIDE / max(width, height))
        if scale == 1.0:
            return width, height
        return max(1, round(width * scale)), max(1, round(height * scale))


def open_image(data: bytes) -> "Image":
    """Open and decode an image; a truncated file opens without complaint and fails only when decoded. Raises
    `UnusableImage`."""
    from PIL import Image

    with pillow_errors(data), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(data))
        if image.width * image.height > MAX_OPENED_PIXELS:
            raise UnusableImage("huge image", f"{image.width} x {image.height} pixels, limit {MAX_OPENED_PIXELS}")
        image.load()
        return image


@contextmanager
def pillow_errors(data: bytes) -> Iterator[None]:
    """Turn any exception of Pillow into `UnusableImage`, so that it concerns one row only.

    Its decoders raise OSError, SyntaxError, ValueError, RuntimeError (AVIF), struct.error, TypeError and others.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except UnusableImage:
        raise
    except UnidentifiedImageError as error:
        start = data[:512].lower()
        hint = next((hint for prefix, hint in FILE_HINTS.items() if prefix in start), f"starting {data[:8]!r}")
        raise UnusableImage("broken image", f"not an image: {len(data)} bytes, {hint}") from error
    except Image.DecompressionBombError as error:
        raise UnusableImage("huge image", str(error)) from error
    except Exception as error:
        raise UnusableImage("broken image", f"{type(error).__name__}: {error}") from error


def pixel_digest(image: "Image") -> str:
    """Digest of size and RGB pixels: equal for all lossless encodings of an image."""
    header = f"{image.width}x{image.height}:".encode()
    return hashlib.sha256(header + image.convert("RGB").tobytes()).hexdigest()


def _orientation(image: "Image") -> "Transpose | None":
    """The transposition that the EXIF orientation asks for. Damaged EXIF data count as none: the pixels are fine."""
    from PIL.Image import Transpose

    by_tag = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    try:
        return by_tag.get(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - the EXIF parser raises SyntaxError, struct.error and others
        return None


def _to_rgb(image: "Image") -> "Image":
    """Convert to RGB: 16-bit grey is scaled to 8 bits, transparency is composited on white."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        opaque = Image.new("RGB", rgba.size, BACKGROUND)
        opaque.paste(rgba, mask=rgba.getchannel("A"))
        return opaque
    return image.convert("RGB")
