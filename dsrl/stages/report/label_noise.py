"""How many voted labels are probably wrong: a model of votes, fitted to all candidates of a run. See docs/labels.md.

An answer of the teacher is right with a chance of the question's own, drawn from a Beta distribution over questions.
An answer that isn't right is unreadable with a chance that is the same everywhere; else it is one of so many wrong
answers to the question, whose shares are drawn from a symmetric Dirichlet distribution for each question.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from dsrl.data.sample import Votes

MOST_FITTED = 1000
"""Candidates that the model is fitted to; of more, every k-th."""
ROUNDS = 6
MEANS = (*(percent / 100 for percent in range(50, 100)), 0.995, 0.999)
STRENGTHS = tuple(2 ** (step / 2) for step in range(-2, 19))
WRONG = tuple(
    {"options": options, "evenness": evenness}
    for options in (1, 2, 3, 4, 9, 1000)
    for evenness in (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 300.0, 3000.0)
)
MUTE = (0.001, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 0.99)
DIALS: tuple[Sequence[Mapping[str, Any]], ...] = (
    [{"mean": mean} for mean in MEANS],
    [{"strength": strength} for strength in STRENGTHS],
    WRONG,
    [{"mute": mute} for mute in MUTE],
)
"""Places that the fit tries."""


@dataclass(frozen=True)
class Tally:
    """The votes of one candidate as the model sees them: which answer has which number of them doesn't matter."""

    counts: tuple[int, ...]
    """Votes of each answer, most first."""
    unparsable: int
    left: int
    """Votes that a full vote would still have asked for."""

    @classmethod
    def of(cls, votes: Votes) -> "Tally":
        return cls(tuple(sorted(votes.counts.values(), reverse=True)), votes.unparsable, votes.planned - votes.asked)

    @property
    def first(self) -> int:
        return self.counts[0] if self.counts else 0

    @property
    def readable(self) -> int:
        return sum(self.counts)

    @property
    def came(self) -> int:
        return self.readable + self.unparsable


@dataclass(frozen=True)
class Teacher:
    """What the model says of a teacher on one task."""

    mean: float = 0.9
    """Mean chance that an answer is right; assumed to be at least a half."""
    strength: float = 8.0
    """How alike the questions are: the sum of the Beta distribution's two parameters."""
    options: int = 1000
    """Wrong answers that a question has."""
    evenness: float = 3.0
    """How little they repeat each other: the sum of the Dirichlet distribution's parameters."""
    mute: float = 0.1
    """Share of the answers that aren't right which are unreadable."""

    @cached_property
    def right(self) -> float:
        return self.mean * self.strength

    @cached_property
    def wrong(self) -> float:
        return (1 - self.mean) * self.strength

    def weight(self, tally: Tally, right: int | None) -> float:
        """Logarithm of the chance of these votes if the answer at place `right` is right; None: it never came."""
        others = [count for place, count in enumerate(tally.counts) if place != right]
        hits = tally.readable - sum(others)
        chance = log_beta(self.right + hits, self.wrong + tally.came - hits) - log_beta(self.right, self.wrong)
        chance += tally.unparsable * math.log(self.mute) + sum(others) * math.log(1 - self.mute)
        return chance + scatter(others, self.options, self.evenness)

    def chances(self, tally: Tally) -> list[float]:
        """Unnormalised logarithms for each answer being the right one, and last for none of them."""
        return [self.weight(tally, place) for place in range(len(tally.counts))] + [self.weight(tally, None)]

    def error(self, tally: Tally) -> float:
        """Chance that the answer with the most votes is not the right one."""
        logs = self.chances(tally)
        if not tally.counts:
            return 1.0
        return -math.expm1(logs[0] - log_sum(logs))

    def kept(self, tally: Tally, share: float) -> tuple[float, float]:
        """Chances that the first answer ends up with this share of a full vote: as a right one, and as a wrong one."""
        error = self.error(tally)
        needed = math.ceil(share * (tally.came + tally.left) - 1e-9) - tally.first
        tied = tally.left == 0 and tally.counts[:1] == tally.counts[1:2]
        if not tally.counts or tied or needed > tally.left:
            return 0.0, 0.0
        others = tally.came - tally.first
        as_right = beta_tail(needed, tally.left, self.right + tally.first, self.wrong + others)
        as_wrong = beta_tail(needed, tally.left, tally.first, others + 1.0)
        return (1 - error) * as_right, error * as_wrong


def fitted(votes: Iterable[Votes]) -> Teacher:
    """The teacher under whom these votes are most likely: one dial after the other moved to its best place."""
    tallies = [replace(Tally.of(vote), left=0) for vote in votes if vote.asked > vote.failed]
    chance = likelihood(Counter(tallies[:: 1 + len(tallies) // MOST_FITTED]))
    teacher = Teacher()
    for _ in range(ROUNDS):
        before = teacher
        for places in DIALS:
            teacher = max((replace(teacher, **place) for place in places), key=chance)
        if teacher == before:
            break
    return teacher


def likelihood(patterns: Counter[Tally]) -> Callable[[Teacher], float]:
    """Logarithm of the chance of all votes, as a function of the teacher."""
    return lambda teacher: sum(number * log_sum(teacher.chances(tally)) for tally, number in patterns.items())


def log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def log_sum(logs: Sequence[float]) -> float:
    top = max(logs)
    if top == -math.inf:
        return top
    return top + math.log(sum(math.exp(value - top) for value in logs))


def scatter(counts: Sequence[int], options: int, evenness: float) -> float:
    """Logarithm of the chance that so many wrong answers fall together in this way."""
    if len(counts) > options:
        return -math.inf
    each = evenness / options
    chosen = math.lgamma(options + 1) - math.lgamma(options - len(counts) + 1)
    drawn = sum(math.lgamma(each + count) - math.lgamma(each) for count in counts)
    return chosen + drawn + math.lgamma(evenness) - math.lgamma(evenness + sum(counts))


def beta_tail(needed: int, trials: int, a: float, b: float) -> float:
    """Chance of `needed` successes or more in so many trials whose common chance is Beta(a, b) distributed."""
    if needed <= 0:
        return 1.0
    whole = math.lgamma(trials + 1) - log_beta(a, b)
    ways = (
        whole - math.lgamma(k + 1) - math.lgamma(trials - k + 1) + log_beta(a + k, b + trials - k)
        for k in range(needed, trials + 1)
    )
    return min(1.0, sum(map(math.exp, ways)))
