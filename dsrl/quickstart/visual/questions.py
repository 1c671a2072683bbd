"""Questions about pictures of shapes, as text; a picture's shapes answer them."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from dsrl.quickstart.stories import CannotDo
from dsrl.quickstart.visual.pictures import COLOURS, KINDS, Shape

Form = Literal["one", "both", "more"]


@dataclass(frozen=True)
class What:
    """Something to be counted: a colour, a kind, or both."""

    colour: str | None
    kind: str | None

    def __str__(self) -> str:
        """In the plural: `red shapes`, `circles`, `red circles`."""
        return " ".join(filter(None, (self.colour, f"{self.kind or 'shape'}s")))

    def holds(self, shape: Shape) -> bool:
        return self.colour in (None, shape.colour) and self.kind in (None, shape.kind)

    def count(self, shapes: Sequence[Shape]) -> int:
        return sum(self.holds(shape) for shape in shapes)

    def beside(self, other: "What") -> bool:
        """Whether both are colours or both are kinds, and not the same: no shape is both."""
        return self != other and (self.colour is None) == (other.colour is None)


@dataclass(frozen=True)
class Question:
    """How many there are of one thing, of two together, or of one more than of another."""

    form: Form
    first: What
    second: What | None = None

    @property
    def text(self) -> str:
        if self.form == "one":
            return f"How many {self.first} are there?"
        if self.form == "both":
            return f"How many {self.first} and {self.second} are there together?"
        return f"How many more {self.first} than {self.second} are there?"

    @property
    def level(self) -> int:
        """1 for a single property, 2 for two, 3 for two things together, 4 for a difference."""
        if self.form == "one":
            return 1 + (self.first.colour is not None and self.first.kind is not None)
        return 3 if self.form == "both" else 4

    def parts(self, shapes: Sequence[Shape]) -> tuple[int, ...]:
        """The counts that the answer is made of."""
        return tuple(what.count(shapes) for what in (self.first, self.second) if what is not None)

    def answer(self, shapes: Sequence[Shape]) -> int:
        first, *second = self.parts(shapes)
        return first + sum(second) if self.form != "more" else first - sum(second)


COLOUR, KIND = "|".join(COLOURS), "|".join(KINDS)
_WHAT = rf"(?:(?:{COLOUR}) )?(?:{KIND}|shape)s"
_FORMS: tuple[tuple[Form, re.Pattern[str]], ...] = (
    ("one", re.compile(rf"How many ({_WHAT}) are there\?")),
    ("both", re.compile(rf"How many ({_WHAT}) and ({_WHAT}) are there together\?")),
    ("more", re.compile(rf"How many more ({_WHAT}) than ({_WHAT}) are there\?")),
)
SINGLE = tuple(What(colour, None) for colour in COLOURS) + tuple(What(None, kind) for kind in KINDS)
DOUBLE = tuple(What(colour, kind) for colour, kind in product(COLOURS, KINDS))
ALL = (
    *(Question("one", what) for what in (*SINGLE, *DOUBLE)),
    *(
        Question(form, first, second)
        for form in ("both", "more")
        for first, second in product(SINGLE, repeat=2)
        if first.beside(second)
    ),
)
"""Every question there is."""
LEVELS = (1, 2, 3, 4)
OF_LEVEL = {level: [question for question in ALL if question.level == level] for level in LEVELS}


def parse(text: str) -> Question:
    """The last question in a text. Raises `CannotDo` where there is none."""
    asked = text.rpartition("How many ")
    words = f"{asked[1]}{asked[2].partition('?')[0]}?"
    for form, pattern in _FORMS:
        if found := pattern.fullmatch(words):
            return Question(form, *map(_what, found.groups()))
    raise CannotDo(f"this is no question about how many shapes there are: {text.strip()[:60]!r}")


def _what(text: str) -> What:
    words = text.split()
    kind = words[-1].removesuffix("s")
    return What(words[0] if len(words) > 1 else None, None if kind == "shape" else kind)


def fitting(shapes: Sequence[Shape], level: int) -> list[Question]:
    """Questions of a level that make sense for a picture: everything they name is there, and the answer is above 0."""
    return [question for question in OF_LEVEL[level] if min(question.parts(shapes)) > 0 and question.answer(shapes) > 0]


def ask(rng: random.Random, shapes: Sequence[Shape], level: int) -> Question | None:
    """One of them, or None where there is none. The answer is drawn first, so that the smallest isn't the commonest by
    far."""
    questions = fitting(shapes, level)
    answers = sorted({question.answer(shapes) for question in questions})
    wanted = rng.choice(answers) if answers else None
    same = [question for question in questions if question.answer(shapes) == wanted]
    return rng.choice(same) if same else None
