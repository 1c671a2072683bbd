"""Images of coloured shapes on a 3 x 3 grid: what is in one, and how it is drawn."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

from PIL import Image, ImageDraw

from dsrl.core.digest import digest

SIDE, CELL = 48, 16
"""Width and height in pixels of an image and of a grid cell."""
COLOURS = {"red": (214, 48, 49), "green": (46, 160, 67), "blue": (38, 98, 214), "yellow": (233, 190, 30)}
KINDS = ("circle", "square", "triangle")
PLACES = SIDE // CELL
NUM_SHAPES = (3, 9)
SHAPE_SIZES = (9, 11, 13)
COLOUR_JITTER = 10
"""Maximum deviation from the nominal colour, per channel."""
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Shape:
    colour: str
    kind: str

    def __str__(self) -> str:
        return f"{self.colour} {self.kind}"


@dataclass(frozen=True)
class DrawnShape:
    shape: Shape
    row: int
    column: int
    left: int
    top: int
    size: int
    paint: Colour


@dataclass(frozen=True)
class Scene:
    """All that is needed to draw an image, with the same pixels each time."""

    background: Colour
    drawn: tuple[DrawnShape, ...]

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """In reading order."""
        return tuple(drawn.shape for drawn in self.drawn)

    def grid(self) -> list[Shape | None]:
        """The shape in each cell, row by row."""
        by_cell = {(drawn.row, drawn.column): drawn.shape for drawn in self.drawn}
        return [by_cell.get((row, column)) for row in range(PLACES) for column in range(PLACES)]

    def draw(self) -> Image.Image:
        image = Image.new("RGB", (SIDE, SIDE), self.background)
        for drawn in self.drawn:
            image.paste(drawn.paint, (drawn.left, drawn.top), shape_mask(drawn.shape.kind, drawn.size))
        return image

    def digest(self) -> str:
        """Digest of the pixels."""
        return digest(self.draw().tobytes().hex())


@cache
def shape_mask(kind: str, size: int) -> Image.Image:
    mask = Image.new("1", (size, size), 0)
    pen, end = ImageDraw.Draw(mask), size - 1
    if kind == "circle":
        pen.ellipse((0, 0, end, end), fill=1)
    elif kind == "square":
        pen.rectangle((0, 0, end, end), fill=1)
    else:
        pen.polygon(((end / 2, 0), (end, end), (0, end)), fill=1)
    return mask


def draw_scene(rng: random.Random) -> Scene:
    """Random shapes in random cells, slightly off centre. Colours and kinds are weighted at random, so that some are
    more common in an image."""
    number = rng.randint(*NUM_SHAPES)
    cells = sorted(rng.sample(list(product(range(PLACES), repeat=2)), number))
    colour_weights, kind_weights = _draw_weights(rng, len(COLOURS)), _draw_weights(rng, len(KINDS))
    drawn = tuple(_draw_shape(rng, row, column, colour_weights, kind_weights) for row, column in cells)
    grey = rng.randint(232, 255)
    return Scene((grey, grey, grey), drawn)


def draw_scenes(rng: random.Random) -> Iterator[Scene]:
    while True:
        yield draw_scene(rng)


def _draw_weights(rng: random.Random, number: int) -> Sequence[float]:
    return [rng.choice((1.0, 1.0, 3.0)) for _ in range(number)]


def _draw_shape(
    rng: random.Random, row: int, column: int, colour_weights: Sequence[float], kind_weights: Sequence[float]
) -> DrawnShape:
    shape = Shape(rng.choices(list(COLOURS), colour_weights)[0], rng.choices(KINDS, kind_weights)[0])
    size = rng.choice(SHAPE_SIZES)
    left, top = (place * CELL + 1 + rng.randint(0, CELL - 2 - size) for place in (column, row))
    red, green, blue = (
        min(255, max(0, value + rng.randint(-COLOUR_JITTER, COLOUR_JITTER))) for value in COLOURS[shape.colour]
    )
    return DrawnShape(shape, row, column, left, top, size, (red, green, blue))
