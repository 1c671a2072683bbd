"""95 % intervals of means over test items. Items are the unit: replies to one item aren't independent."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from dsrl.core.estimate import Z, student, wilson
from dsrl.data.evaluation import Estimate

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Floats = NDArray[numpy.float64]

LEAST_ITEMS = 30
LEAST_DIFFERENT = 5
"""With fewer items, or fewer that differ from the commonest value, the bootstrap's interval can't be trusted."""
SHARES, DIFFERENCES = (0.0, 1.0), (-1.0, 1.0)
"""Where values lie."""
BLOCK = 1 << 22
"""Numbers held in memory at a time."""


def bootstrap(values: Sequence[float], resamples: int, seed: int, ends: tuple[float, float] = SHARES) -> Estimate:
    """The mean of item values with its interval over items drawn with replacement: bias-corrected and accelerated (BCa,
    Efron 1987), at levels that Student's t asks for in place of the normal. Paired differences of two models, item by
    item, make this the paired bootstrap. Where `few` holds it is the `cautious` interval instead. Raises `ValueError`
    without values."""
    import numpy

    if not values:
        raise ValueError("no items to resample")
    if few(values):
        return cautious(values, ends)
    items = numpy.asarray(values, dtype=float)
    levels, counts = numpy.unique(items, return_counts=True)
    means = numpy.concatenate(list(_means(levels, counts, resamples, numpy.random.default_rng(seed))))
    value = float(items.mean())
    low, high = numpy.quantile(means, _levels(means, items))
    return Estimate(value=value, low=min(value, float(low)), high=max(value, float(high)))


def few(values: Sequence[float]) -> bool:
    """Whether there is too little to go by for a bootstrap."""
    alike = Counter(values).most_common(1)[0][1] if values else 0
    return len(values) < LEAST_ITEMS or len(values) - alike < LEAST_DIFFERENT


def cautious(values: Sequence[float], ends: tuple[float, float]) -> Estimate:
    """The mean with Student's t interval after made-up items were put in at both ends, as Agresti and Coull do for
    shares (z²/2 each) and Agresti and Min for differences (one each). Holds the truth more often than promised, and
    never has a width of 0, however much alike the values are."""
    import numpy

    items = numpy.asarray(values, dtype=float)
    added = 1.0 if ends == DIFFERENCES else Z * Z / 2
    total = len(items) + 2 * added
    centre = (items.sum() + added * sum(ends)) / total
    variance = (items @ items + added * (ends[0] ** 2 + ends[1] ** 2)) / total - centre**2
    reach = student(len(items) - 1) * math.sqrt(max(variance, 0.0) / total)
    value = float(items.mean())
    low, high = max(ends[0], centre - reach), min(ends[1], centre + reach)
    return Estimate(value=value, low=min(value, float(low)), high=max(value, float(high)))


def proportion(verdicts: Sequence[bool]) -> Estimate:
    """A share of yes-or-no items with Wilson's interval. Raises `ValueError` without any."""
    if not verdicts:
        raise ValueError("no items")
    value = sum(verdicts) / len(verdicts)
    low, high = wilson(value, len(verdicts))
    return Estimate(value=value, low=low, high=high)


def _means(
    levels: "Floats", counts: "NDArray[numpy.int64]", resamples: int, generator: "numpy.random.Generator"
) -> "Iterator[Floats]":
    """Means of items drawn with replacement: how often each value is drawn, instead of which item."""
    total = int(counts.sum())
    size = max(BLOCK // len(levels), 1)
    for done in range(0, resamples, size):
        drawn = generator.multinomial(total, counts / total, size=min(size, resamples - done))
        yield drawn @ levels / total


def _levels(means: "Floats", items: "Floats") -> tuple[float, float]:
    """Which quantiles of the resampled means are the interval's ends (Efron and Tibshirani, equation 14.10)."""
    from statistics import NormalDist

    normal, value, tiny = NormalDist(), items.mean(), 1e-12
    below = (float((means < value - tiny).mean()) + float((means <= value + tiny).mean())) / 2
    bias = normal.inv_cdf(min(max(below, 1 / len(means)), 1 - 1 / len(means)))
    away = items - value
    acceleration = float((away**3).sum() / (6 * (away @ away) ** 1.5))
    reach = student(len(items) - 1) * math.sqrt(len(items) / (len(items) - 1))
    low, high = (normal.cdf(bias + (bias + end) / (1 - acceleration * (bias + end))) for end in (-reach, reach))
    return low, high
