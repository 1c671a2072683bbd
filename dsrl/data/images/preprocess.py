"""Preprocess an image as it comes into the one that every model sees."""

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from dsrl.core.component import Component, component
from dsrl.core.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

KEPT_FORMATS = {"PNG": "png", "JPEG": "jpg"}
"""Formats that every model and server reads -> file suffix; others are converted to PNG."""
MAX_OPENED_PIXELS = 400_000_000
"""Larger images are decompression bombs, or useless to a model."""
EXIF_ORIENTATION = 0x0112
BACKGROUND = (255, 255, 255)
"""Behind transparent pixels."""


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
        image = open_image(data)
        upright = _apply_orientation(image)
        width, height = self.size(upright.width, upright.height)
        suffix = KEPT_FORMATS.get(image.format or "")
        if suffix and upright is image and image.mode in ("RGB", "L") and (width, height) == image.size:
            return PreparedImage(data, suffix, width, height)
        rgb = _to_rgb(upright)
        if (width, height) != rgb.size:
            rgb = rgb.resize((width, height))
        out = io.BytesIO()
        rgb.save(out, "PNG", compress_level=1)
        return PreparedImage(out.getvalue(), "png", width, height)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) at which an image of this size is shown, with the same aspect ratio."""
        target = min(max(width * height, self.min_pixels), self.max_pixels)
        if target == width * height:
            return width, height
        scale = (target / (width * height)) ** 0.5
        return max(1, round(width * scale)), max(1, round(height * scale))


def open_image(data: bytes) -> "Image":
    """Open and decode an image; a truncated file opens without complaint and fails only when decoded. Raises
    `UnusableImage`."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
            if image.width * image.height > MAX_OPENED_PIXELS:
                raise UnusableImage("huge image", f"{image.width} x {image.height} pixels, limit {MAX_OPENED_PIXELS}")
            image.load()
    except UnidentifiedImageError as error:
        raise UnusableImage("broken image", f"not an image: {len(data)} bytes, starting {data[:8]!r}") from error
    except Image.DecompressionBombError as error:
        raise UnusableImage("huge image", str(error)) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UnusableImage("broken image", f"{type(error).__name__}: {error}") from error
    return image


def _apply_orientation(image: "Image") -> "Image":
    """Rotate by the EXIF orientation; returns the same object if there is nothing to do."""
    from PIL import ImageOps

    orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    return image if orientation == 1 else ImageOps.exif_transpose(image)


def _to_rgb(image: "Image") -> "Image":
    """Convert to RGB: 16-bit grey is scaled to 8 bits, transparency is composited on white."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        image = image.point(lambda value: value / 256).convert("L")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        opaque = Image.new("RGB", rgba.size, BACKGROUND)
        opaque.paste(rgba, mask=rgba.getchannel("A"))
        return opaque
    return image.convert("RGB")
