"""Pairwise comparisons: which items meet, and Bradley-Terry ratings from the outcomes (Elo scale)."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dsrl.core.digest import digest

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray[Any, Any]

ELO = 400 / math.log(10)
MIDDLE = 1000.0
NEWTON_STEPS, CG_STEPS = 50, 100
TOLERANCE = 1e-4
"""Gradient, in battles, at which the fit has converged."""


@dataclass(frozen=True)
class Outcomes:
    """Decided battles; all arrays have shape (battles,)."""

    first: "Array"
    second: "Array"
    score: "Array"
    """1: the first item is harder; 0: the second; 0.5: a tie."""
    items: int


@dataclass(frozen=True)
class Ratings:
    """Ratings of shape (items,); NaN for an item without a decided battle."""

    rating: "Array"
    """The median over bootstraps."""
    low: "Array"
    high: "Array"
    """Ends of the middle 95 % of bootstraps."""


def draw_pairs(items: int, opponents: int, seed: int) -> list[tuple[int, int]]:
    """Distinct pairs (shown first, shown second) in which every item has about `opponents` opponents, or all others.

    The items stand in a circle in seeded order, and each meets those at certain distances: 1, which connects all items,
    and others drawn by the seed. More opponents add pairs and change none.
    """
    rng = random.Random(digest([seed, "battles", items]))
    circle = rng.sample(range(items), items)
    half = (items - 1) // 2
    distances = [1, *rng.sample(range(2, half + 1), max(0, half - 1))]
    if items % 2 == 0 and items > 2:
        distances.append(items // 2)
    pairs: list[tuple[int, int]] = []
    for distance in distances[: -(-opponents // 2)]:
        # Items opposite each other would meet twice, once from each side.
        starts = range(items // 2 if 2 * distance == items else items)
        pairs += [(circle[place], circle[(place + distance) % items]) for place in starts]
    order = random.Random(digest([seed, "order", items]))
    return [pair if order.random() < 0.5 else (pair[1], pair[0]) for pair in pairs]


def make_outcomes(first: Sequence[int], second: Sequence[int], score: Sequence[float], items: int) -> Outcomes:
    import numpy

    return Outcomes(numpy.asarray(first, int), numpy.asarray(second, int), numpy.asarray(score, float), items)


def rate(outcomes: Outcomes, *, ridge: float, bootstraps: int, seed: int) -> Ratings:
    """Ratings with intervals. Each bootstrap draws as many battles as there are, with replacement; an item without a
    battle in the draw has no rating in it."""
    import numpy

    count, rng = len(outcomes.score), numpy.random.default_rng(seed)
    ones = numpy.ones(count)
    start = fit(outcomes, ones, ridge)
    rows = [] if bootstraps else [to_elo(outcomes, ones, start)]
    for _ in range(bootstraps):
        weight = numpy.bincount(rng.integers(count, size=count), minlength=count)
        rows.append(to_elo(outcomes, weight, fit(outcomes, weight, ridge, start)))
    table = numpy.stack(rows)  # (bootstraps, items)
    rated = ~numpy.isnan(table).all(axis=0)
    low, middle, high = (numpy.full(outcomes.items, numpy.nan) for _ in range(3))
    if rated.any():
        low[rated], middle[rated], high[rated] = numpy.nanpercentile(table[:, rated], [2.5, 50, 97.5], axis=0)
    return Ratings(middle, low, high)


def fit(outcomes: Outcomes, weight: "Array", ridge: float, start: "Array | None" = None) -> "Array":
    """Log-odds of being the harder item, shape (items,): the maximum of the weighted log-likelihood minus ridge / 2
    times the squared norm, which keeps an item that always wins or loses finite and makes the mean 0.

    Newton's method with conjugate gradients: memory and time of a step grow with the battles, not with the square of
    the items.
    """
    import numpy

    strength = numpy.zeros(outcomes.items) if start is None else start.copy()
    for _ in range(NEWTON_STEPS):
        odds = strength[outcomes.second] - strength[outcomes.first]
        chance: Array = 1 / (1 + numpy.exp(odds))
        gradient = sum_by_item(outcomes, weight * (outcomes.score - chance)) - ridge * strength
        if numpy.abs(gradient).max(initial=0.0) < TOLERANCE:
            break
        step = newton_step(outcomes, weight * chance * (1 - chance), gradient, ridge)
        near = numpy.abs(step).max() < 0.5  # where the likelihood is close to a parabola
        strength = strength + (1.0 if near else damping(outcomes, weight, ridge, strength, step)) * step
    return strength


def sum_by_item(outcomes: Outcomes, value: "Array") -> "Array":
    """Sums of a value per battle, positive for the first item and negative for the second; shape (items,)."""
    import numpy

    total: Array = numpy.bincount(outcomes.first, value, outcomes.items)
    total -= numpy.bincount(outcomes.second, value, outcomes.items)
    return total


def newton_step(outcomes: Outcomes, curvature: "Array", gradient: "Array", ridge: float) -> "Array":
    """Solves (Hessian + ridge) step = gradient by conjugate gradients with the diagonal as preconditioner."""
    import numpy

    first = numpy.bincount(outcomes.first, curvature, outcomes.items)
    diagonal = first + numpy.bincount(outcomes.second, curvature, outcomes.items) + ridge
    step, residual = numpy.zeros_like(gradient), gradient.copy()
    scaled = residual / diagonal
    direction, size = scaled.copy(), residual @ scaled
    target = 1e-3 * size
    for _ in range(CG_STEPS):
        difference = direction[outcomes.first] - direction[outcomes.second]
        product = sum_by_item(outcomes, curvature * difference) + ridge * direction
        length = size / (direction @ product)
        step, residual = step + length * direction, residual - length * product
        scaled = residual / diagonal
        size, before = residual @ scaled, size
        if size <= target:
            break
        direction = scaled + size / before * direction
    return step


def damping(outcomes: Outcomes, weight: "Array", ridge: float, strength: "Array", step: "Array") -> float:
    """The factor for a step: 1, halved until the loss decreases."""
    import numpy

    def loss(strength: "Array") -> float:
        ahead = strength[outcomes.first] - strength[outcomes.second]
        negative_log_likelihood = weight @ (numpy.logaddexp(0, ahead) - outcomes.score * ahead)
        return float(negative_log_likelihood + ridge / 2 * strength @ strength)

    now, factor = loss(strength), 1.0
    while factor > 1e-3 and loss(strength + factor * step) > now:
        factor /= 2
    return factor


def to_elo(outcomes: Outcomes, weight: "Array", strength: "Array") -> "Array":
    """Log-odds on the Elo scale; NaN for items without a battle."""
    import numpy

    battles = numpy.bincount(outcomes.first, weight, outcomes.items)
    battles = battles + numpy.bincount(outcomes.second, weight, outcomes.items)
    return numpy.where(battles > 0, MIDDLE + ELO * strength, numpy.nan)


def num_groups(outcomes: Outcomes) -> int:
    """Connected groups of rated items: ratings of different groups can't be compared."""
    import numpy
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ones = numpy.ones(len(outcomes.first))
    graph = coo_array((ones, (outcomes.first, outcomes.second)), shape=(outcomes.items, outcomes.items))
    _, labels = connected_components(graph, directed=False)
    return len(numpy.unique(labels[numpy.concatenate([outcomes.first, outcomes.second])]))
