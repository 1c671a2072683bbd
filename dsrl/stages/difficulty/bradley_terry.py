"""Bradley-Terry ratings out of battles, on the pairs that met and no others (Elo scale)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray[Any, Any]

ELO = 400 / math.log(10)
MIDDLE = 1000.0
NEWTON_STEPS, CG_STEPS = 50, 100
CLOSE = 1e-4
"""Gradient, in battles, at which the fit is done."""


@dataclass(frozen=True)
class Battles:
    """Decided battles, one to a row."""

    first: "Array"
    second: "Array"
    score: "Array"
    """1: the first is harder; 0: the second; a half: neither."""
    items: int


@dataclass(frozen=True)
class Ratings:
    """Of every item; NaN for one without a decided battle: it stays unrated."""

    rating: "Array"
    """The median over bootstraps."""
    low: "Array"
    high: "Array"
    """The middle 95 % of bootstraps."""


def battles(first: Sequence[int], second: Sequence[int], score: Sequence[float], items: int) -> Battles:
    """As arrays."""
    import numpy

    return Battles(numpy.asarray(first, int), numpy.asarray(second, int), numpy.asarray(score, float), items)


def rate(fought: Battles, *, ridge: float, bootstraps: int, seed: int) -> Ratings:
    """Ratings with intervals. Each bootstrap draws as many battles as there are, with replacement; an item that one of
    them leaves without a battle has no rating in it."""
    import numpy

    count, rng = len(fought.score), numpy.random.default_rng(seed)
    whole = numpy.ones(count)
    start = fit(fought, whole, ridge)
    found = [] if bootstraps else [_known(fought, whole, start)]
    for _ in range(bootstraps):
        weight = numpy.bincount(rng.integers(count, size=count), minlength=count)
        found.append(_known(fought, weight, fit(fought, weight, ridge, start)))
    table = numpy.stack(found)
    rated = ~numpy.isnan(table).all(axis=0)
    low, middle, high = (numpy.full(fought.items, numpy.nan) for _ in range(3))
    if rated.any():
        low[rated], middle[rated], high[rated] = numpy.nanpercentile(table[:, rated], [2.5, 50, 97.5], axis=0)
    return Ratings(middle, low, high)


def fit(fought: Battles, weight: "Array", ridge: float, start: "Array | None" = None) -> "Array":
    """Log-odds of being the harder one: the maximum of the weighted likelihood less ridge / 2 times their squares,
    which keeps an item that always wins or loses finite and makes the mean 0.

    Newton's method with conjugate gradients: memory and the time of a step grow with the battles, not with the square
    of the items.
    """
    import numpy

    strength = numpy.zeros(fought.items) if start is None else start.copy()
    for _ in range(NEWTON_STEPS):
        chance = _chance(fought, strength)
        slope = _sum(fought, weight * (fought.score - chance)) - ridge * strength
        if numpy.abs(slope).max(initial=0.0) < CLOSE:
            break
        step = _solve(fought, weight * chance * (1 - chance), slope, ridge)
        near = numpy.abs(step).max() < 0.5  # where the likelihood is as good as a parabola
        strength = strength + (1.0 if near else _damped(fought, weight, ridge, strength, step)) * step
    return strength


def _chance(fought: Battles, strength: "Array") -> "Array":
    import numpy

    chance: Array = 1 / (1 + numpy.exp(strength[fought.second] - strength[fought.first]))
    return chance


def _sum(fought: Battles, value: "Array") -> "Array":
    """Item by item: what its battles say for it."""
    import numpy

    gain: Array = numpy.bincount(fought.first, value, fought.items)
    gain -= numpy.bincount(fought.second, value, fought.items)
    return gain


def _solve(fought: Battles, curve: "Array", slope: "Array", ridge: float) -> "Array":
    """The Newton step, by conjugate gradients with the diagonal as preconditioner."""
    import numpy

    own = numpy.bincount(fought.first, curve, fought.items) + numpy.bincount(fought.second, curve, fought.items) + ridge
    step, left = numpy.zeros_like(slope), slope.copy()
    ahead = left / own
    way, size = ahead.copy(), left @ ahead
    target = 1e-3 * size
    for _ in range(CG_STEPS):
        bent = _sum(fought, curve * (way[fought.first] - way[fought.second])) + ridge * way
        length = size / (way @ bent)
        step, left = step + length * way, left - length * bent
        ahead = left / own
        size, before = left @ ahead, size
        if size <= target:
            break
        way = ahead + size / before * way
    return step


def _damped(fought: Battles, weight: "Array", ridge: float, strength: "Array", step: "Array") -> float:
    """The whole step, or as many times halved as it takes to get nearer."""
    now, share = _loss(fought, weight, ridge, strength), 1.0
    while share > 1e-3 and _loss(fought, weight, ridge, strength + share * step) > now:
        share /= 2
    return share


def _loss(fought: Battles, weight: "Array", ridge: float, strength: "Array") -> float:
    import numpy

    ahead = strength[fought.first] - strength[fought.second]
    return float(weight @ (numpy.logaddexp(0, ahead) - fought.score * ahead) + ridge / 2 * strength @ strength)


def _known(fought: Battles, weight: "Array", strength: "Array") -> "Array":
    """On the Elo scale; NaN where an item has no battle."""
    import numpy

    met = numpy.bincount(fought.first, weight, fought.items) + numpy.bincount(fought.second, weight, fought.items)
    return numpy.where(met > 0, MIDDLE + ELO * strength, numpy.nan)


def groups(fought: Battles) -> int:
    """Groups of rated items that never met: ratings of different groups can't be compared."""
    parent = list(range(fought.items))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    met: set[int] = set()
    for one, other in zip(fought.first.tolist(), fought.second.tolist(), strict=True):
        met |= {one, other}
        parent[root(one)] = root(other)
    return len({root(item) for item in met})
