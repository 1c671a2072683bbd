"""What a difference between two models is worth. Test items are the unit: replies to one item aren't independent."""

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist

LEVEL = 0.95
POWER = 0.8
BLOCK = 1 << 22
"""Random draws held in memory at a time."""


def sign_flip_p_value(differences: Sequence[float], resamples: int, seed: int) -> float:
    """Two-sided p of no difference: how often randomly swapping the two models within items gives a mean as large."""
    import numpy

    items = numpy.asarray(differences, dtype=float)
    generator = numpy.random.default_rng(seed)
    # Sums that are equal on paper may differ in their last digits.
    bound = abs(items.sum()) - 1e-9 * max(float(numpy.abs(items).sum()), 1.0)
    extreme = 0
    for rows in _blocks(resamples, len(items)):
        signs = generator.integers(0, 2, (rows, len(items)), dtype=numpy.int8)
        extreme += int((numpy.abs(signs @ (2 * items) - items.sum()) >= bound).sum())
    return (1 + extreme) / (1 + resamples)


def _blocks(resamples: int, num_items: int) -> Iterator[int]:
    """Numbers of resamples that fit into memory and sum to all."""
    size = max(BLOCK // max(num_items, 1), 1)
    for done in range(0, resamples, size):
        yield min(size, resamples - done)


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p of McNemar's test: items only the second model solves against items only the first does."""
    flips = gained + lost
    tail = ways = 1
    for count in range(min(gained, lost)):
        ways = ways * (flips - count) // (count + 1)
        tail += ways
    return min(1.0, 2 * tail / (1 << flips))


def detectable(differences: Sequence[float]) -> float | None:
    """Smallest true mean difference that a 5 % two-sided test over so many items, spread like these, would find four
    times in five. None where they show no spread to go by: fewer than two, or all alike."""
    if len(set(differences)) < 2:
        return None
    mean = math.fsum(differences) / len(differences)
    variance = math.fsum((difference - mean) ** 2 for difference in differences) / (len(differences) - 1)
    normal = NormalDist()
    return (normal.inv_cdf((1 + LEVEL) / 2) + normal.inv_cdf(POWER)) * math.sqrt(variance / len(differences))
