"""Means over test items with their 95 % intervals, and tests of the difference between two models.

The independent unit is not always the item: items of one group (`task.test.group`) and items that repeat a question
stand or fall together. `Units` adds up the values of each unit; intervals and tests then draw whole units.
"""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from dsrl.core.statistics import Z, t_quantile, wilson_interval
from dsrl.data.evaluation import Estimate

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Floats = NDArray[numpy.float64]

LEVEL, POWER = 0.95, 0.8
MIN_UNITS, MIN_DIFFERENT = 30, 5
"""With fewer units, or fewer that differ from the most common value, a bootstrap interval is too narrow."""
MAX_BOOTSTRAPPED = 5000
"""Beyond this many units the bootstrap and Student's t agree to a tenth of a point, and the bootstrap takes seconds."""
SHARES, DIFFERENCES = (0.0, 1.0), (-1.0, 1.0)
"""Bounds of the values."""
BATCH = 1 << 22
"""Random numbers held in memory at a time."""


@dataclass(frozen=True)
class Units:
    """Values of items, added up within each independent unit."""

    sums: "Floats"
    counts: "Floats"

    @classmethod
    def of(cls, values: Sequence[float], units: Sequence[Hashable] | None = None) -> "Units":
        """`units` names the unit of each value; without it every value is its own. Raises `ValueError` without
        values."""
        import numpy

        if not len(values):
            raise ValueError("no items")
        array = numpy.asarray(values, dtype=float)
        if units is None:
            return cls(array, numpy.ones(len(array)))
        numbers: dict[Hashable, int] = {}
        places = [numbers.setdefault(unit, len(numbers)) for unit in units]
        sums, counts = numpy.bincount(places, array), numpy.bincount(places)
        return cls(sums.astype(numpy.float64), counts.astype(numpy.float64))

    def __len__(self) -> int:
        return len(self.sums)

    @property
    def mean(self) -> float:
        """The mean over items."""
        return float(self.sums.sum() / self.counts.sum())

    @property
    def linearised(self) -> "Floats":
        """One value for each unit, with the same mean and the variance of a mean over clusters. For units of one item
        these are the values themselves."""
        mean = self.mean
        return mean + (self.sums - mean * self.counts) / float(self.counts.mean())

    @property
    def is_sparse(self) -> bool:
        """Whether there is too little variation for a bootstrap."""
        alike = Counter(self.linearised.round(12).tolist()).most_common(1)[0][1]
        return len(self) < MIN_UNITS or len(self) - alike < MIN_DIFFERENT


def mean_interval(units: Units, resamples: int, seed: int, bounds: tuple[float, float] = SHARES) -> Estimate:
    """The mean over items with its interval: bias-corrected and accelerated bootstrap (BCa, Efron 1987) over units,
    expanded for small samples (Hesterberg 2015, doi:10.1080/00031305.2015.1089789). With sparse or very many units it
    is `pseudo_item_interval`. Paired differences of two models make this the paired bootstrap."""
    import numpy
    from scipy.stats import bootstrap

    size, mean = len(units), units.mean
    if units.is_sparse or size > MAX_BOOTSTRAPPED:
        return pseudo_item_interval(units, bounds)
    expanded = 2 * NormalDist().cdf(t_quantile(size - 1, LEVEL) * math.sqrt(size / (size - 1))) - 1
    found = bootstrap(
        (units.sums, units.counts),
        lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, BATCH // size),
        confidence_level=expanded,
        method="BCa",
        rng=numpy.random.default_rng(seed),
    ).confidence_interval
    return Estimate(value=mean, low=min(mean, float(found.low)), high=max(mean, float(found.high)))


def pseudo_item_interval(units: Units, bounds: tuple[float, float]) -> Estimate:
    """The mean with Student's t interval after pseudo-items were added at both bounds: z²/2 each for shares (Agresti
    and Coull 1998), one each for differences (Agresti and Min 2005). It is conservative, and never of width 0."""
    values = units.linearised
    added = 1.0 if bounds == DIFFERENCES else Z * Z / 2
    total = len(values) + 2 * added
    centre = (values.sum() + added * sum(bounds)) / total
    variance = (values @ values + added * (bounds[0] ** 2 + bounds[1] ** 2)) / total - centre**2
    reach = t_quantile(len(values) - 1, LEVEL) * math.sqrt(max(variance, 0.0) / total)
    mean, low, high = units.mean, max(bounds[0], centre - reach), min(bounds[1], centre + reach)
    return Estimate(value=mean, low=min(mean, float(low)), high=max(mean, float(high)))


def share_interval(units: Units, resamples: int, seed: int) -> Estimate:
    """The share of true verdicts (1.0 or 0.0): Wilson's interval where every item is a unit, else `mean_interval`."""
    if len(units) < units.counts.sum():
        return mean_interval(units, resamples, seed)
    low, high = wilson_interval(units.mean, len(units))
    return Estimate(value=units.mean, low=low, high=high)


def sign_flip_p_value(units: Units, resamples: int, seed: int) -> float:
    """Two-sided p-value of no difference: how often swapping the two models at random within units gives a mean
    difference at least as large."""
    import numpy
    from scipy.stats import monte_carlo_test

    generator = numpy.random.default_rng(seed)

    def flip(size: tuple[int, ...]) -> Any:
        return units.sums * (2.0 * generator.integers(0, 2, size, dtype=numpy.int8) - 1.0)

    batch = max(1, BATCH // len(units))
    found = monte_carlo_test(
        units.sums,
        flip,
        lambda sums, axis: numpy.abs(sums.sum(axis)),
        vectorized=True,
        n_resamples=resamples,
        batch=batch,
        alternative="greater",
    )
    return float(found.pvalue)


def mcnemar_p_value(gained: int, lost: int) -> float:
    """Exact two-sided p-value: items that only the second model solves against items that only the first solves."""
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def detectable_difference(units: Units) -> float | None:
    """Smallest true mean difference that a 5 % two-sided test over so many units, spread like these, finds four times
    in five. None where the differences show no spread."""
    values = units.linearised
    if len(values) < 2 or values.max() == values.min():
        return None
    normal = NormalDist()
    reach = normal.inv_cdf((1 + LEVEL) / 2) + normal.inv_cdf(POWER)
    return reach * float(values.std(ddof=1)) / math.sqrt(len(values))
