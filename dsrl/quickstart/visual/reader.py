"""What is on a picture, found out from its pixels alone."""

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image

from dsrl.quickstart.stories import CannotDo
from dsrl.quickstart.visual.pictures import COLOURS, Colour, Shape

FAR = 90
"""Distance from the paper, summed over the channels, from which on a pixel is painted."""
SMALLEST = 12
"""Pixels of a spot that is taken for a shape."""
SQUARE, CIRCLE = 0.92, 0.66
"""Share of its bounding box that a square fills, and a circle; a triangle fills less."""
LARGEST = 1 << 20
"""Pixels of a picture that is still looked at."""
Place = tuple[int, int]


@dataclass(frozen=True)
class Spot:
    """Painted pixels that hang together."""

    places: Sequence[Place]
    paint: Colour

    @property
    def box(self) -> tuple[int, int, int, int]:
        columns, rows = zip(*self.places, strict=True)
        return min(columns), min(rows), max(columns) + 1, max(rows) + 1

    @property
    def shape(self) -> Shape:
        left, top, right, bottom = self.box
        filled = len(self.places) / ((right - left) * (bottom - top))
        kind = "square" if filled >= SQUARE else "circle" if filled >= CIRCLE else "triangle"
        return Shape(min(COLOURS, key=lambda name: _distance(COLOURS[name], self.paint)), kind)


def read(data: bytes) -> tuple[Shape, ...]:
    """The shapes of a PNG or JPEG, from the top. Raises `CannotDo` for anything that holds none."""
    try:
        with Image.open(io.BytesIO(data)) as found:
            picture = found.convert("RGB")
    except OSError as error:
        raise CannotDo(f"I can't open the picture: {error}") from error
    if picture.width * picture.height > LARGEST:
        raise CannotDo(f"a picture of {picture.width} x {picture.height} pixels is too large for me")
    found_spots = [spot for spot in spots(picture) if len(spot.places) >= SMALLEST]
    if not found_spots:
        raise CannotDo("there are no shapes on the picture")
    return tuple(spot.shape for spot in sorted(found_spots, key=lambda spot: spot.box[1]))


def spots(picture: Image.Image) -> Iterable[Spot]:
    """Everything that stands out from the commonest colour."""
    raw, width = picture.tobytes(), picture.width
    pixels: list[Colour] = list(zip(raw[::3], raw[1::3], raw[2::3], strict=True))
    common = Counter(pixels)
    paper = common.most_common(1)[0][0]
    paints = {colour for colour in common if _distance(colour, paper) > FAR}
    colours = {(at % width, at // width): colour for at, colour in enumerate(pixels) if colour in paints}
    left = set(colours)
    while left:
        places = _together(left.pop(), left)
        yield Spot(places, Counter(colours[place] for place in places).most_common(1)[0][0])


def _together(first: Place, left: set[Place]) -> list[Place]:
    """Takes out of `left` whatever can be reached from `first`."""
    places = [first]
    for x, y in places:
        near = {(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)} & left
        left -= near
        places += near
    return places


def _distance(one: Colour, other: Colour) -> int:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True))
