"""Pictures of coloured shapes: what is on one, and how it is drawn."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from collections.abc import Sequence

SIDE, CELL = 48, 16
"""Pixels of a picture and of one of its places, either way."""
COLOURS = {"red": (214, 48, 49), "green": (46, 160, 67), "blue": (38, 98, 214), "yellow": (233, 190, 30)}
KINDS = ("circle", "square", "triangle")
PLACES = SIDE // CELL
FILLED = (3, 9)
"""Fewest and most shapes of a picture."""
SIZES = (9, 11, 13)
SHADE = 10
"""How far a colour may be from its own, in each channel."""
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Shape:
    """One thing on a picture."""

    colour: str
    kind: str

    def __str__(self) -> str:
        return f"{self.colour} {self.kind}"


@dataclass(frozen=True)
class Drawn:
    """A shape as it is drawn."""

    shape: Shape
    row: int
    column: int
    left: int
    top: int
    size: int
    paint: Colour


@dataclass(frozen=True)
class Scene:
    """All that is needed to draw a picture, the same pixels each time."""

    paper: Colour
    things: tuple[Drawn, ...]

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Row by row, from the left."""
        return tuple(thing.shape for thing in self.things)

    def draw(self) -> Image.Image:
        picture = Image.new("RGB", (SIDE, SIDE), self.paper)
        for thing in self.things:
            picture.paste(thing.paint, (thing.left, thing.top), stamp(thing.shape.kind, thing.size))
        return picture


@cache
def stamp(kind: str, size: int) -> Image.Image:
    """Where the paint goes."""
    mask = Image.new("1", (size, size), 0)
    pen, end = ImageDraw.Draw(mask), size - 1
    if kind == "circle":
        pen.ellipse((0, 0, end, end), fill=1)
    elif kind == "square":
        pen.rectangle((0, 0, end, end), fill=1)
    else:
        pen.polygon(((end / 2, 0), (end, end), (0, end)), fill=1)
    return mask


def scene(rng: random.Random) -> Scene:
    """Shapes of drawn colours and kinds in drawn places, each a little off the middle; one colour or kind may be
    commoner than the rest."""
    number = rng.randint(*FILLED)
    places = sorted(rng.sample(list(product(range(PLACES), repeat=2)), number))
    colours, kinds = _weights(rng, len(COLOURS)), _weights(rng, len(KINDS))
    things = tuple(_thing(rng, row, column, colours, kinds) for row, column in places)
    grey = rng.randint(232, 255)
    return Scene((grey, grey, grey), things)


def scenes(rng: random.Random) -> Iterator[Scene]:
    """One after the other without end."""
    while True:
        yield scene(rng)


def _weights(rng: random.Random, number: int) -> "Sequence[float]":
    return [rng.choice((1.0, 1.0, 3.0)) for _ in range(number)]


def _thing(rng: random.Random, row: int, column: int, colours: "Sequence[float]", kinds: "Sequence[float]") -> Drawn:
    shape = Shape(rng.choices(list(COLOURS), colours)[0], rng.choices(KINDS, kinds)[0])
    size = rng.choice(SIZES)
    left, top = (place * CELL + 1 + rng.randint(0, CELL - 2 - size) for place in (column, row))
    red, green, blue = (_near(rng, value) for value in COLOURS[shape.colour])
    return Drawn(shape, row, column, left, top, size, (red, green, blue))


def _near(rng: random.Random, value: int) -> int:
    return min(255, max(0, value + rng.randint(-SHADE, SHADE)))
