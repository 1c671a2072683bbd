"""Questions about images of shapes: as text, and with the answer for the shapes of an image."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from dsrl.quickstart.stories import CannotDo
from dsrl.quickstart.visual.scenes import COLOURS, KINDS, Shape

Form = Literal["one", "both", "more"]


@dataclass(frozen=True)
class CountedThing:
    """Shapes of a colour, of a kind, or of both."""

    colour: str | None
    kind: str | None

    def __str__(self) -> str:
        """In the plural: `red shapes`, `circles`, `red circles`."""
        return " ".join(filter(None, (self.colour, f"{self.kind or 'shape'}s")))

    def includes(self, shape: Shape) -> bool:
        return self.colour in (None, shape.colour) and self.kind in (None, shape.kind)

    def count(self, shapes: Sequence[Shape]) -> int:
        return sum(self.includes(shape) for shape in shapes)

    def excludes(self, other: "CountedThing") -> bool:
        """Whether both are different colours or different kinds, so that no shape is both."""
        return self != other and (self.colour is None) == (other.colour is None)


@dataclass(frozen=True)
class Question:
    """The number of one thing (`one`), of two together (`both`), or how many more of the first than of the second
    (`more`)."""

    form: Form
    first: CountedThing
    second: CountedThing | None = None

    @property
    def text(self) -> str:
        if self.form == "one":
            return f"How many {self.first} are there?"
        if self.form == "both":
            return f"How many {self.first} and {self.second} are there together?"
        return f"How many more {self.first} than {self.second} are there?"

    @property
    def level(self) -> int:
        """1 for a single property, 2 for colour and kind, 3 for two things together, 4 for a difference."""
        if self.form == "one":
            return 1 + (self.first.colour is not None and self.first.kind is not None)
        return 3 if self.form == "both" else 4

    def counts(self, shapes: Sequence[Shape]) -> tuple[int, ...]:
        return tuple(thing.count(shapes) for thing in (self.first, self.second) if thing is not None)

    def answer(self, shapes: Sequence[Shape]) -> int:
        first, *second = self.counts(shapes)
        return first + sum(second) if self.form != "more" else first - sum(second)


COLOUR, KIND = "|".join(COLOURS), "|".join(KINDS)
_THING = rf"(?:(?:{COLOUR}) )?(?:{KIND}|shape)s"
_FORMS: tuple[tuple[Form, re.Pattern[str]], ...] = (
    ("one", re.compile(rf"How many ({_THING}) are there\?")),
    ("both", re.compile(rf"How many ({_THING}) and ({_THING}) are there together\?")),
    ("more", re.compile(rf"How many more ({_THING}) than ({_THING}) are there\?")),
)
SINGLE = tuple(CountedThing(colour, None) for colour in COLOURS) + tuple(CountedThing(None, kind) for kind in KINDS)
DOUBLE = tuple(CountedThing(colour, kind) for colour, kind in product(COLOURS, KINDS))
ALL = (
    *(Question("one", thing) for thing in (*SINGLE, *DOUBLE)),
    *(
        Question(form, first, second)
        for form in ("both", "more")
        for first, second in product(SINGLE, repeat=2)
        if first.excludes(second)
    ),
)
LEVELS = (1, 2, 3, 4)
BY_LEVEL = {level: [question for question in ALL if question.level == level] for level in LEVELS}


def parse(text: str) -> Question:
    """Parse the last question in a text. Raises `CannotDo` if there is none."""
    asked = text.rpartition("How many ")
    words = f"{asked[1]}{asked[2].partition('?')[0]}?"
    for form, pattern in _FORMS:
        if match := pattern.fullmatch(words):
            return Question(form, *map(_parse_thing, match.groups()))
    raise CannotDo(f"this is no question about how many shapes there are: {text.strip()[:60]!r}")


def _parse_thing(text: str) -> CountedThing:
    words = text.split()
    kind = words[-1].removesuffix("s")
    return CountedThing(words[0] if len(words) > 1 else None, None if kind == "shape" else kind)


def sensible_questions(shapes: Sequence[Shape], level: int) -> list[Question]:
    """Questions of a level that name only things in the image and have a positive answer."""
    return [
        question for question in BY_LEVEL[level] if min(question.counts(shapes)) > 0 and question.answer(shapes) > 0
    ]


def draw_question(rng: random.Random, shapes: Sequence[Shape], level: int) -> Question | None:
    """A random sensible question, or None if there is none. The answer is drawn first: otherwise the smallest answer
    would be by far the most common."""
    questions = sensible_questions(shapes, level)
    answers = sorted({question.answer(shapes) for question in questions})
    if not answers:
        return None
    answer = rng.choice(answers)
    return rng.choice([question for question in questions if question.answer(shapes) == answer])
