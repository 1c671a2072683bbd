"""Intervals hold the truth as often as they say, by simulation. `benchmarks/coverage.py` makes the long table."""

import math
from collections.abc import Callable
from statistics import fmean

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsrl.stages.evaluate.intervals import DIFFERENCES, SHARES, bootstrap, cautious, few, proportion

Values = numpy.ndarray
Draw = Callable[[numpy.random.Generator, tuple[int, int]], Values]
SIMULATIONS = 1000
RESAMPLES = 400


def rates(easy: float, hard: float, replies: int = 8) -> Draw:
    """Shares of right replies to items whose difficulty has a Beta distribution, with the mean easy / (easy + hard)."""
    return lambda generator, shape: generator.binomial(replies, generator.beta(easy, hard, shape)) / replies


def gains(generator: numpy.random.Generator, shape: tuple[int, int]) -> Values:
    """Half of the items become easier by four tenths of what is lacking; the true mean is 0.1."""
    before = generator.beta(0.5, 0.5, shape)
    after = before + 0.4 * (1 - before) * (generator.random(shape) < 0.5)
    return (generator.binomial(8, after) - generator.binomial(8, before)) / 8


def flips(gained: float, lost: float) -> Draw:
    """Greedy verdicts of two models: the difference is 1, -1 or 0."""
    chances = [gained, lost, 1 - gained - lost]
    return lambda generator, shape: generator.choice([1.0, -1.0, 0.0], p=chances, size=shape)


def coverage(draw: Draw, truth: float, num_items: int, ends: tuple[float, float]) -> float:
    table = draw(numpy.random.default_rng(num_items), (SIMULATIONS, num_items))
    found = [bootstrap(row.tolist(), RESAMPLES, number, ends) for number, row in enumerate(table)]
    return fmean(estimate.low - 1e-9 <= truth <= estimate.high + 1e-9 for estimate in found)


@pytest.mark.parametrize(
    ("draw", "truth", "num_items", "ends"),
    [
        (rates(0.5, 0.5), 0.5, 30, SHARES),
        (rates(0.5, 0.5), 0.5, 100, SHARES),
        (rates(0.3, 2.7), 0.1, 100, SHARES),
        (rates(3.8, 0.2), 0.95, 100, SHARES),
        (rates(3.8, 0.2), 0.95, 400, SHARES),
        (gains, 0.1, 30, DIFFERENCES),
        (gains, 0.1, 100, DIFFERENCES),
        (flips(0.3, 0.1), 0.2, 100, DIFFERENCES),
        (flips(0.04, 0.02), 0.02, 400, DIFFERENCES),
    ],
)
def test_the_bootstrap_holds_the_truth_95_times_in_100(
    draw: Draw, truth: float, num_items: int, ends: tuple[float, float]
) -> None:
    assert coverage(draw, truth, num_items, ends) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(
    ("draw", "truth", "num_items", "ends"),
    [
        (rates(19, 1, 1), 0.95, 30, SHARES),
        (rates(0.1, 4.9), 0.02, 30, SHARES),
        (rates(0.5, 0.5), 0.5, 5, SHARES),
        (flips(0.03, 0.01), 0.02, 100, DIFFERENCES),
        (flips(0.02, 0.02), 0.0, 30, DIFFERENCES),
    ],
)
def test_where_little_is_known_the_interval_is_cautious(
    draw: Draw, truth: float, num_items: int, ends: tuple[float, float]
) -> None:
    assert coverage(draw, truth, num_items, ends) >= 0.95


@pytest.mark.parametrize(("share", "trials"), [(0.5, 30), (0.1, 100), (0.95, 100), (0.98, 400)])
def test_wilson_holds_the_truth_95_times_in_100(share: float, trials: int) -> None:
    chances = [math.comb(trials, n) * share**n * (1 - share) ** (trials - n) for n in range(trials + 1)]
    found = [proportion([True] * n + [False] * (trials - n)) for n in range(trials + 1)]
    held = sum(chance for chance, each in zip(chances, found, strict=True) if each.low <= share <= each.high)
    assert held == pytest.approx(0.95, abs=0.02)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(0, 99))
def test_an_interval_is_ordered_seeded_and_within_the_ends(values: list[float], seed: int) -> None:
    estimate = bootstrap(values, 50, seed)
    assert estimate == bootstrap(values, 50, seed)
    assert estimate.value == pytest.approx(fmean(values))
    assert -1e-9 <= estimate.low <= estimate.value <= estimate.high <= 1 + 1e-9
    assert estimate.low < estimate.high


@pytest.mark.parametrize("values", [[1.0] * 20, [0.0] * 500, [1.0]])
def test_items_that_are_all_alike_prove_no_certainty(values: list[float]) -> None:
    assert few(values)
    found = bootstrap(values, 100, 0)
    assert found.high - found.low > 0.005
    assert found == cautious(values, SHARES)


def test_few() -> None:
    assert few([])
    assert few([0.0, 1.0] * 10)
    assert few([0.0] * 96 + [1.0] * 4)
    assert not few([0.0] * 95 + [1.0] * 5)


def test_items_are_needed() -> None:
    for made in (lambda: bootstrap([], 10, 0), lambda: proportion([])):
        with pytest.raises(ValueError, match="no items"):
            made()
