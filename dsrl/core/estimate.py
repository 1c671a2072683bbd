"""Estimates: an expected value, and how low and high it may come out."""

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass

from dsrl.core.statistics import t_quantile

LEAST = 1e-3
"""Share below which nothing is reckoned with."""


@dataclass(frozen=True)
class Range:
    """An expected value between the low and the high one that it will pass one time in twenty each."""

    low: float
    expected: float
    high: float

    @classmethod
    def of(cls, value: float) -> "Range":
        """A value that is known."""
        return cls(value, value, value)

    def __add__(self, other: "Range") -> "Range":
        return Range(self.low + other.low, self.expected + other.expected, self.high + other.high)

    def __mul__(self, other: "Range | float") -> "Range":
        """Low with low and high with high: errors are taken to go together, which is on the safe side."""
        by = other if isinstance(other, Range) else Range.of(other)
        return Range(self.low * by.low, self.expected * by.expected, self.high * by.high)

    def __truediv__(self, other: "Range") -> "Range":
        """How many of `other`, a share, it takes to make this."""
        return Range(
            self.low / max(other.high, LEAST),
            self.expected / max(other.expected, LEAST),
            self.high / max(other.low, LEAST),
        )

    def within(self, least: float = 0.0, most: float = math.inf) -> "Range":
        """Cut at both ends."""
        return Range(*(min(max(value, least), most) for value in (self.low, self.expected, self.high)))

    def plain(self) -> dict[str, float]:
        return dataclasses.asdict(self)


NOTHING = Range(0.0, 0.0, 0.0)
ALL = Range(1.0, 1.0, 1.0)


def mean(values: Iterable[float]) -> Range:
    """The mean of some measured values with its 90 % interval."""
    known = list(values)
    middle = sum(known) / len(known)
    if len(known) < 2:
        return Range(middle / 2, middle, middle * 2)
    deviation = math.sqrt(sum((value - middle) ** 2 for value in known) / (len(known) - 1))
    reach = t_quantile(len(known) - 1, 0.9) * deviation / math.sqrt(len(known))
    return Range(middle - reach, middle, middle + reach).within(0.0)


def share(hits: float, total: float, assumed: float, weight: float = 6.0) -> Range:
    """A share with its 90 % interval: so many of so many, drawn towards what was assumed as by `weight` more."""
    middle = (hits + assumed * weight) / (total + weight)
    reach = 1.65 * math.sqrt(middle * (1 - middle) / (total + weight + 1))
    return Range(middle - reach, middle, middle + reach).within(0.0, 1.0)
