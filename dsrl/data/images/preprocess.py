"""From a picture as it comes to the one that every model sees."""

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from dsrl.core.component import Component, component
from dsrl.core.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

KEPT = {"PNG": "png", "JPEG": "jpg"}
"""Formats that every model and server reads; others are written as PNG."""
LARGEST = 400_000_000
"""Pixels of a picture that is still opened: more is a bomb, or no picture for a model."""
ORIENTATION = 0x0112
"""The EXIF field that says how a camera was held."""
PAPER = (255, 255, 255)
"""What shines through where a picture is transparent."""


class Unfit(Exception):
    """A picture that no model can be shown; `reason` is short and countable, the text says more."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Picture:
    """A picture as models see it."""

    data: bytes
    suffix: str
    width: int
    height: int


@component("data.pixels")
class Pixels(Component):
    """How large a picture is shown: the same in pass rates, rewriting, training and evaluation. The defaults are
    SynthRL's (paper, table 6)."""

    min_pixels: int = Field(default=262_144, gt=0)
    """Smaller ones are enlarged to so many pixels (width times height)."""
    max_pixels: int = Field(default=1_003_520, gt=0)
    """Larger ones are reduced to so many."""

    @model_validator(mode="after")
    def _in_order(self) -> "Pixels":
        if self.min_pixels > self.max_pixels:
            raise UserError(
                "task.pixels: min_pixels is more than max_pixels",
                got=f"{self.min_pixels} > {self.max_pixels}",
                next_step="lower task.pixels.min_pixels or raise task.pixels.max_pixels",
            )
        return self

    def fit(self, data: bytes) -> Picture:
        """Upright, RGB, without transparency and of the right size. A PNG or JPEG that is all that already stays as it
        is, byte for byte. Raises `Unfit` for what can't be opened."""
        picture = opened(data)
        upright = _upright(picture)
        width, height = self.size(upright.width, upright.height)
        form = KEPT.get(picture.format or "")
        if form and upright is picture and picture.mode in ("RGB", "L") and (width, height) == picture.size:
            return Picture(data, form, width, height)
        flat = _flat(upright)
        if (width, height) != flat.size:
            flat = flat.resize((width, height))
        out = io.BytesIO()
        flat.save(out, "PNG", compress_level=1)
        return Picture(out.getvalue(), "png", width, height)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """The size at which a picture of this size is shown, its sides in the same proportion."""
        bound = min(max(width * height, self.min_pixels), self.max_pixels)
        if bound == width * height:
            return width, height
        scale = (bound / (width * height)) ** 0.5
        return max(1, round(width * scale)), max(1, round(height * scale))


def opened(data: bytes) -> "Image":
    """All of the picture, decoded now: half of a file opens as well as a whole one."""
    import warnings

    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data))
            if picture.width * picture.height > LARGEST:
                raise Unfit("huge image", f"{picture.width} x {picture.height} pixels, at most {LARGEST} are opened")
            picture.load()
    except UnidentifiedImageError as error:
        raise Unfit("broken image", f"no picture: {len(data)} bytes that begin with {data[:8]!r}") from error
    except Image.DecompressionBombError as error:
        raise Unfit("huge image", str(error)) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise Unfit("broken image", f"{type(error).__name__}: {error}") from error
    return picture


def _upright(picture: "Image") -> "Image":
    """As the photographer saw it; the same object where nothing is to be done."""
    from PIL import ImageOps

    turned = picture.getexif().get(ORIENTATION, 1)
    return picture if turned == 1 else ImageOps.exif_transpose(picture)


def _flat(picture: "Image") -> "Image":
    """RGB: palettes and CMYK turned into colours, 16 bit grey scaled down, transparency laid on white."""
    from PIL import Image

    if picture.mode.startswith("I;16"):
        picture = picture.point(lambda value: value / 256).convert("L")
    if picture.has_transparency_data:
        seen = picture.convert("RGBA")
        paper = Image.new("RGB", seen.size, PAPER)
        paper.paste(seen, mask=seen.getchannel("A"))
        return paper
    return picture.convert("RGB")
