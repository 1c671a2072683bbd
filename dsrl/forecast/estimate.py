"""Estimates: an expected value with the ends of its 90 % interval."""

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass

from dsrl.core.statistics import t_quantile

MIN_SHARE = 1e-3
"""Shares below this count as this much when something is divided by them."""


@dataclass(frozen=True)
class Range:
    """An expected value, and the values that the real one stays above and below in 19 cases of 20 each."""

    low: float
    expected: float
    high: float

    @classmethod
    def of(cls, value: float) -> "Range":
        """A known value."""
        return cls(value, value, value)

    def __add__(self, other: "Range") -> "Range":
        return Range(self.low + other.low, self.expected + other.expected, self.high + other.high)

    def __mul__(self, other: "Range | float") -> "Range":
        """Multiply low by low and high by high: errors are assumed to go together, which is conservative."""
        by = other if isinstance(other, Range) else Range.of(other)
        return Range(self.low * by.low, self.expected * by.expected, self.high * by.high)

    def __truediv__(self, share: "Range") -> "Range":
        """The total of which `share` makes this much."""
        return Range(
            self.low / max(share.high, MIN_SHARE),
            self.expected / max(share.expected, MIN_SHARE),
            self.high / max(share.low, MIN_SHARE),
        )

    def within(self, least: float = 0.0, most: float = math.inf) -> "Range":
        """Clip all three values."""
        return Range(*(min(max(value, least), most) for value in (self.low, self.expected, self.high)))

    def plain(self) -> dict[str, float]:
        return dataclasses.asdict(self)


NOTHING = Range(0.0, 0.0, 0.0)
ALL = Range(1.0, 1.0, 1.0)


def mean(values: Iterable[float]) -> Range:
    """The mean of measured values with Student's 90 % interval; half and double for a single value."""
    measured = list(values)
    middle = sum(measured) / len(measured)
    if len(measured) < 2:
        return Range(middle / 2, middle, middle * 2)
    deviation = math.sqrt(sum((value - middle) ** 2 for value in measured) / (len(measured) - 1))
    margin = t_quantile(len(measured) - 1, 0.9) * deviation / math.sqrt(len(measured))
    return Range(middle - margin, middle, middle + margin).within(0.0)


def share(hits: float, total: float, assumed: float, weight: float = 6.0) -> Range:
    """A share with its 90 % interval, after adding `weight` cases of which the share `assumed` are hits."""
    middle = (hits + assumed * weight) / (total + weight)
    margin = 1.65 * math.sqrt(middle * (1 - middle) / (total + weight + 1))
    return Range(middle - margin, middle, middle + margin).within(0.0, 1.0)
