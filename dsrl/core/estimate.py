"""Estimates: an expected value, and how low and high it may come out."""

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass

Z = 1.959964
"""Normal quantile of a two-sided 95 % interval."""
Z_90 = 1.644854
FEWEST = {Z: (math.inf, 12.7062, 4.3027), Z_90: (math.inf, 6.3138, 2.9200)}
"""Student's t for up to two degrees of freedom, where the series is too coarse."""
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
    reach = student(len(known) - 1, Z_90) * deviation / math.sqrt(len(known))
    return Range(middle - reach, middle, middle + reach).within(0.0)


def share(hits: float, total: float, assumed: float, weight: float = 6.0) -> Range:
    """A share with its 90 % interval: so many of so many, drawn towards what was assumed as by `weight` more."""
    middle = (hits + assumed * weight) / (total + weight)
    reach = 1.65 * math.sqrt(middle * (1 - middle) / (total + weight + 1))
    return Range(middle - reach, middle, middle + reach).within(0.0, 1.0)


def wilson(share: float, trials: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share over so many trials, not always a whole number; all there is without any."""
    if trials <= 0:
        return 0.0, 1.0
    spread = Z * Z / trials
    centre = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt((share * (1 - share) + spread / 4) / trials) / (1 + spread)
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def student(freedom: int, normal: float = Z) -> float:
    """Quantile of Student's t where the normal distribution has `normal` (Cornish and Fisher's series)."""
    if freedom < 3:
        return FEWEST[normal][freedom]
    third, fifth, seventh = (math.pow(normal, power) for power in (3, 5, 7))
    terms = (
        (third + normal) / 4,
        (5 * fifth + 16 * third + 3 * normal) / 96,
        (3 * seventh + 19 * fifth + 17 * third - 15 * normal) / 384,
    )
    return normal + sum(term / math.pow(freedom, power) for power, term in enumerate(terms, 1))
