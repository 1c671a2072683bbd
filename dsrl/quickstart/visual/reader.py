"""Find the shapes in an image from its pixels alone."""

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image

from dsrl.quickstart.stories import CannotDo
from dsrl.quickstart.visual.scenes import COLOURS, Colour, Shape

MIN_CONTRAST = 90
"""Distance from the background, summed over the channels, above which a pixel is painted."""
MIN_SHAPE_PIXELS = 12
SQUARE_FILL, CIRCLE_FILL = 0.92, 0.66
"""Minimum share of its bounding box that a square fills, and a circle; a triangle fills less."""
MAX_PIXELS = 1 << 20
Pixel = tuple[int, int]
"""(x, y)."""


@dataclass(frozen=True)
class Spot:
    """A connected component of painted pixels."""

    pixels: Sequence[Pixel]
    paint: Colour

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom)."""
        columns, rows = zip(*self.pixels, strict=True)
        return min(columns), min(rows), max(columns) + 1, max(rows) + 1

    @property
    def shape(self) -> Shape:
        left, top, right, bottom = self.box
        fill = len(self.pixels) / ((right - left) * (bottom - top))
        kind = "square" if fill >= SQUARE_FILL else "circle" if fill >= CIRCLE_FILL else "triangle"
        return Shape(min(COLOURS, key=lambda name: _distance(COLOURS[name], self.paint)), kind)


def read_shapes(data: bytes) -> tuple[Shape, ...]:
    """The shapes in a PNG or JPEG, from top to bottom. Raises `CannotDo` if there are none."""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            image = opened.convert("RGB")
    except OSError as error:
        raise CannotDo(f"I can't open the picture: {error}") from error
    if image.width * image.height > MAX_PIXELS:
        raise CannotDo(f"a picture of {image.width} x {image.height} pixels is too large for me")
    spots = [spot for spot in find_spots(image) if len(spot.pixels) >= MIN_SHAPE_PIXELS]
    if not spots:
        raise CannotDo("there are no shapes on the picture")
    return tuple(spot.shape for spot in sorted(spots, key=lambda spot: spot.box[1]))


def find_spots(image: Image.Image) -> Iterable[Spot]:
    """Yield everything that stands out from the most common colour."""
    raw, width = image.tobytes(), image.width
    colours: list[Colour] = list(zip(raw[::3], raw[1::3], raw[2::3], strict=True))
    counts = Counter(colours)
    background = counts.most_common(1)[0][0]
    paints = {colour for colour in counts if _distance(colour, background) > MIN_CONTRAST}
    painted = {(at % width, at // width): colour for at, colour in enumerate(colours) if colour in paints}
    remaining = set(painted)
    while remaining:
        pixels = _pop_connected(remaining.pop(), remaining)
        yield Spot(pixels, Counter(painted[pixel] for pixel in pixels).most_common(1)[0][0])


def _pop_connected(first: Pixel, remaining: set[Pixel]) -> list[Pixel]:
    """Remove from `remaining` all pixels connected with `first` and return them."""
    pixels = [first]
    for x, y in pixels:
        neighbours = {(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)} & remaining
        remaining -= neighbours
        pixels += neighbours
    return pixels


def _distance(one: Colour, other: Colour) -> int:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True))
