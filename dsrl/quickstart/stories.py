"""Counting stories, the quickstart's task: drawing, parsing and editing them."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

_NAMES = """
    Ada Amir Ana Bella Ben Cara Carl Clara Dan Dora Elif Emma Erik Eva Fatima Finn Gia Greta Hana Hugo Iris Ivan
    Jack Jonas Jun Kim Kofi Lena Leo Lily Lina Luca Marta Max Maya Mia Nadia Nina Noah Olga Omar Oscar Otto Paul Pia
    Ravi Rita Rosa Ruth Sam Sara Selma Tara Theo Tina Tom Uma Vera Yusuf Zoe
"""
_NOUNS = """
    apples badges bags balls baskets beads beans blankets boats bolts books bottles bowls boxes bricks brushes
    buckets bulbs buns buttons cakes candles cards carrots chairs coins cookies crabs crayons cups cushions ducks
    eggs envelopes feathers flowers gloves hats hens hooks jars keys kites lambs lamps lemons letters loaves maps
    marbles muffins mushrooms nails nets notebooks onions oranges parcels pears pencils pens pies plates plums
    postcards posters pots pumpkins puzzles rabbits ribbons ropes scarves screws seeds shells socks spoons stamps
    stickers stones tickets tiles tomatoes toys tulips
"""
NAMES = tuple(_NAMES.split())
NOUNS = tuple(_NOUNS.split())
"""Plurals. Names and nouns are single tokens of the quickstart's base model."""
GAINS = ("buys {} more", "finds {} more", "gets {} more", "wins {} extra")
LOSSES = ("gives {} away", "sells {} again", "loses {} today", "throws {} out")

LEVELS = (1, 2, 3, 4)
"""Number of changes in a story; one that was made harder may have more."""
START = (2, 12)
AMOUNT = (1, 6)

_OPENING = re.compile(r"(\w+) has (\d+) (\w+)\.")
_QUESTION = re.compile(r"How many (\w+) now\?")
_CHANGES = {form: re.compile(r"(\w+) " + form.format(r"(\d+)") + r"\.") for form in GAINS + LOSSES}


class CannotDo(ValueError):
    """The text is not a counting story, or the story does not allow an edit; the message says why."""


@dataclass(frozen=True)
class Change:
    """One sentence in which the count goes up or down."""

    form: str
    """One of `GAINS` or `LOSSES`."""
    amount: int

    @property
    def delta(self) -> int:
        return self.amount if self.form in GAINS else -self.amount


@dataclass(frozen=True)
class Story:
    """A person has some things, their number changes a few times, and the question is how many there are now."""

    name: str
    noun: str
    start: int
    changes: tuple[Change, ...]

    @property
    def text(self) -> str:
        sentences = (f"{self.name} {change.form.format(change.amount)}." for change in self.changes)
        return " ".join((f"{self.name} has {self.start} {self.noun}.", *sentences, f"How many {self.noun} now?"))

    @property
    def counts(self) -> tuple[int, ...]:
        """The count at the start and after each change."""
        return tuple(accumulate((change.delta for change in self.changes), initial=self.start))

    @property
    def answer(self) -> int:
        return self.counts[-1]

    @property
    def steps(self) -> tuple[str, ...]:
        """One sum per change, such as "3+4=7"."""
        return sums(self.start, [change.delta for change in self.changes])

    @property
    def solution(self) -> str:
        return f"{', '.join(self.steps)} #### {self.answer}"

    @property
    def possible(self) -> bool:
        """Whether no count is negative."""
        return min(self.counts) >= 0


def sums(start: int, deltas: Sequence[int]) -> tuple[str, ...]:
    counts = list(accumulate(deltas, initial=start))
    return tuple(f"{count}{delta:+d}={count + delta}" for count, delta in zip(counts, deltas, strict=False))


def parse(text: str) -> Story:
    """Parse a story. Raises `CannotDo` with the sentence that can't be parsed."""
    sentences = re.split(r"(?<=[.?])\s+", text.strip())
    opening, question = _OPENING.fullmatch(sentences[0]), _QUESTION.fullmatch(sentences[-1])
    if not opening or len(sentences) < 3:
        raise CannotDo(f"not the opening of a counting story: {sentences[0]!r}")
    name, start, noun = opening[1], int(opening[2]), opening[3]
    if not question or question[1] != noun:
        raise CannotDo(f"not the question of a story about {noun}: {sentences[-1]!r}")
    story = Story(name, noun, start, tuple(_parse_change(sentence, name) for sentence in sentences[1:-1]))
    if not story.possible:
        raise CannotDo(f"{name} would have less than no {noun}: {', '.join(story.steps)}")
    return story


def _parse_change(sentence: str, name: str) -> Change:
    for form, pattern in _CHANGES.items():
        if (match := pattern.fullmatch(sentence)) and match[1] == name:
            return Change(form, int(match[2]))
    raise CannotDo(f"not a change in what {name} has: {sentence!r}")


def draw(rng: random.Random, steps: int, names: Sequence[str] = NAMES, nouns: Sequence[str] = NOUNS) -> Story:
    """A random story with this many changes, about one of the names and one of the nouns."""
    story = Story(rng.choice(names), rng.choice(nouns), rng.randint(*START), ())
    for _ in range(steps):
        story = replace(story, changes=(*story.changes, _draw_change(rng, story.answer)))
    return story


def _draw_change(rng: random.Random, count: int) -> Change:
    amount = rng.randint(*AMOUNT)
    forms = LOSSES if rng.random() < 0.5 and count >= amount else GAINS
    return Change(rng.choice(forms), amount)


def harder(story: Story, rng: random.Random) -> Story:
    """Insert one change at a random position."""
    place = rng.randint(0, len(story.changes))
    before, after = story.changes[:place], story.changes[place:]
    longer = replace(story, changes=(*before, _draw_change(rng, story.counts[place]), *after))
    return longer if longer.possible else harder(story, rng)


def easier(story: Story, rng: random.Random) -> Story:
    """Remove a change, or make the only change smaller. Raises `CannotDo` if that is by 1."""
    changes = story.changes
    if len(changes) == 1:
        return replace(story, changes=(_smaller(changes[0], rng),))
    shorter = [replace(story, changes=changes[:place] + changes[place + 1 :]) for place in range(len(changes))]
    return rng.choice([story for story in shorter if story.possible])


def _smaller(change: Change, rng: random.Random) -> Change:
    if change.amount <= 1:
        raise CannotDo("a story with a single change by 1 cannot be made easier")
    return replace(change, amount=rng.randint(1, change.amount - 1))
