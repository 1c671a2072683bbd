"""When to stop drawing: which samples can no longer be among the m with the lowest pass rate.

Of a sample with k right of v valid replies so far, the right ones among the r still to come follow the beta-binomial
distribution with Beta(k + 1/2, v - k + 1/2), Jeffreys' prior. A rate is wanted if it lies within the band and is among
the m lowest there. The bound below which those lie is taken so high that, by all these distributions together, more
than m samples end below it in nineteen cases of twenty; a sample's risk is the probability that its rate ends within
the band and not above the bound. Samples are stopped from the lowest risk on, as long as all risks taken add up to no
more than `error` times m: of the m chosen by full counts, so large a share at most is expected to be missed.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

PRIOR = 0.5
QUANTILE = 1.645
"""Normal quantile of nineteen cases of twenty."""


@dataclass(frozen=True)
class Count:
    """A sample on its way to a pass rate."""

    right: int
    valid: int
    left: int
    """Replies that are still to come, if it goes on."""


@dataclass(frozen=True)
class Wanted:
    """What the samples are drawn for."""

    m: int
    """Samples that will be taken, and some to spare."""
    low: float
    high: float
    """Both ends of the band left out."""
    error: float


def stopped(
    counts: Sequence[Count], going: Sequence[int], wanted: Wanted, spent: float, share: float
) -> dict[int, float]:
    """Which of the samples that are going on may stop, each with its risk. `spent`: the risks taken before; `share`:
    how much of all that may be taken can be by now."""
    top = bound(counts, wanted)
    if top is None:
        return {}
    risks = sorted((risk(counts[place], wanted, top), place) for place in going)
    left, found = wanted.error * wanted.m * share - spent, {}
    for taken, place in risks:
        if taken > left:
            break
        left -= taken
        found[place] = taken
    return found


def bound(counts: Sequence[Count], wanted: Wanted) -> float | None:
    """The lowest rate at or below which surely m samples of the band will end; None where there may be too few. Only
    those count that are above the band's low end already: how many are never solved no prior knows."""
    whole = max(count.valid + count.left for count in counts)
    alike = Counter(count for count in counts if count.right > wanted.low * (count.valid + count.left))
    for number in range(math.floor(wanted.low * whole) + 1, math.ceil(wanted.high * whole)):
        shares = {count: risk(count, wanted, number / whole) for count in alike}
        expected = sum(share * alike[count] for count, share in shares.items())
        spread = math.sqrt(sum(share * (1 - share) * alike[count] for count, share in shares.items()))
        if expected - QUANTILE * spread >= wanted.m:
            return number / whole
    return None


def risk(count: Count, wanted: Wanted, top: float) -> float:
    """Probability that the rate ends within the band and not above `top`."""
    whole = count.valid + count.left
    if not whole:
        return 1.0
    fits = (count.right + more for more in range(count.left + 1))
    return sum(
        chance(count.right, count.valid, count.left, right - count.right)
        for right in fits
        if wanted.low < right / whole < wanted.high and right / whole <= top
    )


@cache
def chance(right: int, valid: int, left: int, more: int) -> float:
    """Of so many right replies among those still to come."""
    a, b = right + PRIOR, valid - right + PRIOR
    ways = math.lgamma(left + 1) - math.lgamma(more + 1) - math.lgamma(left - more + 1)
    return math.exp(ways + _log_beta(a + more, b + left - more) - _log_beta(a, b))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
