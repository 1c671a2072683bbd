"""Intervals cover the truth as often as they say, and tests reject a true null as often as they say, by simulation.

`benchmarks/coverage.py` prints the long tables.
"""

import math
from collections.abc import Callable
from statistics import fmean

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsrl.stages.evaluate.statistics import (
    DIFFERENCES,
    MAX_BOOTSTRAPPED,
    SHARES,
    Units,
    detectable_difference,
    mcnemar_p_value,
    mean_interval,
    pseudo_item_interval,
    share_interval,
    sign_flip_p_value,
)

Values = numpy.ndarray
Draw = Callable[[numpy.random.Generator, tuple[int, int]], Values]
SIMULATIONS = 1000
RESAMPLES = 400


def rates(easy: float, hard: float, replies: int = 8) -> Draw:
    """Pass rates of items whose difficulty is Beta distributed with the mean easy / (easy + hard)."""
    return lambda generator, shape: generator.binomial(replies, generator.beta(easy, hard, shape)) / replies


def gains(generator: numpy.random.Generator, shape: tuple[int, int]) -> Values:
    """Half of the items become easier by four tenths of what is missing to 1; the true mean is 0.1."""
    before = generator.beta(0.5, 0.5, shape)
    after = before + 0.4 * (1 - before) * (generator.random(shape) < 0.5)
    return (generator.binomial(8, after) - generator.binomial(8, before)) / 8


def flips(gained: float, lost: float) -> Draw:
    """Differences of two models' greedy verdicts: 1, -1 or 0."""
    chances = [gained, lost, 1 - gained - lost]
    return lambda generator, shape: generator.choice([1.0, -1.0, 0.0], p=chances, size=shape)


def coverage(draw: Draw, truth: float, num_items: int, bounds: tuple[float, float]) -> float:
    table = draw(numpy.random.default_rng(num_items), (SIMULATIONS, num_items))
    found = [mean_interval(Units.of(row), RESAMPLES, number, bounds) for number, row in enumerate(table)]
    return fmean(estimate.low - 1e-9 <= truth <= estimate.high + 1e-9 for estimate in found)


@pytest.mark.parametrize(
    ("draw", "truth", "num_items", "bounds"),
    [
        (rates(0.5, 0.5), 0.5, 30, SHARES),
        (rates(0.5, 0.5), 0.5, 100, SHARES),
        (rates(0.3, 2.7), 0.1, 100, SHARES),
        (rates(3.8, 0.2), 0.95, 100, SHARES),
        (gains, 0.1, 30, DIFFERENCES),
        (gains, 0.1, 100, DIFFERENCES),
        (flips(0.3, 0.1), 0.2, 100, DIFFERENCES),
        (flips(0.04, 0.02), 0.02, 400, DIFFERENCES),
    ],
)
def test_the_bootstrap_covers_the_truth_95_times_in_100(
    draw: Draw, truth: float, num_items: int, bounds: tuple[float, float]
) -> None:
    assert coverage(draw, truth, num_items, bounds) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(
    ("draw", "truth", "num_items", "bounds"),
    [
        (rates(19, 1, 1), 0.95, 30, SHARES),
        (rates(0.1, 4.9), 0.02, 30, SHARES),
        (rates(0.5, 0.5), 0.5, 5, SHARES),
        (flips(0.03, 0.01), 0.02, 100, DIFFERENCES),
        (flips(0.02, 0.02), 0.0, 30, DIFFERENCES),
    ],
)
def test_with_sparse_items_the_interval_is_conservative(
    draw: Draw, truth: float, num_items: int, bounds: tuple[float, float]
) -> None:
    assert coverage(draw, truth, num_items, bounds) >= 0.95


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(0, 99))
def test_an_interval_is_ordered_seeded_and_within_bounds(values: list[float], seed: int) -> None:
    estimate = mean_interval(Units.of(values), 50, seed)
    assert estimate == mean_interval(Units.of(values), 50, seed)
    assert estimate.value == pytest.approx(fmean(values))
    assert -1e-9 <= estimate.low <= estimate.value <= estimate.high <= 1 + 1e-9
    assert estimate.low < estimate.high


@pytest.mark.parametrize("values", [[1.0] * 20, [0.0] * 500, [1.0]])
def test_equal_items_do_not_give_a_width_of_0(values: list[float]) -> None:
    units = Units.of(values)
    assert units.is_sparse
    found = mean_interval(units, 100, 0)
    assert found.high - found.low > 0.005
    assert found == pseudo_item_interval(units, SHARES)


def test_sparse_is_few_items_or_few_that_differ() -> None:
    assert Units.of([0.0, 1.0] * 10).is_sparse
    assert Units.of([0.0] * 96 + [1.0] * 4).is_sparse
    assert not Units.of([0.0] * 95 + [1.0] * 5).is_sparse


def test_with_very_many_items_bootstrap_and_student_s_t_agree() -> None:
    values = rates(0.5, 0.5)(numpy.random.default_rng(0), (1, MAX_BOOTSTRAPPED))[0]
    bootstrapped, student = mean_interval(Units.of(values), 2000, 0), pseudo_item_interval(Units.of(values), SHARES)
    assert (bootstrapped.low, bootstrapped.high) == pytest.approx((student.low, student.high), abs=1e-3)


def test_without_items_there_is_no_mean() -> None:
    with pytest.raises(ValueError, match="no items"):
        Units.of([])


def test_units_add_up_their_items_and_keep_the_mean_over_items() -> None:
    units = Units.of([1.0, 1.0, 0.0, 1.0], ["a", "a", "b", "a"])
    assert (units.sums.tolist(), units.counts.tolist(), units.mean) == ([3.0, 0.0], [3.0, 1.0], 0.75)
    assert units.linearised.mean() == pytest.approx(units.mean)


def test_copies_of_an_item_add_no_evidence() -> None:
    values = rates(0.5, 0.5)(numpy.random.default_rng(1), (1, 40))[0]
    names = range(40)
    once, ten = Units.of(values), Units.of(numpy.repeat(values, 10), numpy.repeat(names, 10).tolist())
    assert mean_interval(ten, 2000, 0).low == pytest.approx(mean_interval(once, 2000, 0).low)
    assert detectable_difference(ten) == pytest.approx(detectable_difference(once))
    changes = values - 0.4
    both = (Units.of(changes), Units.of(numpy.repeat(changes, 10), numpy.repeat(names, 10).tolist()))
    assert sign_flip_p_value(both[0], 2000, 0) == sign_flip_p_value(both[1], 2000, 0)


def test_a_share_of_independent_items_has_wilson_s_interval() -> None:
    found = share_interval(Units.of([1.0] * 8 + [0.0] * 2), 100, 0)
    assert (found.low, found.value, found.high) == pytest.approx((0.49016, 0.8, 0.94332), abs=1e-4)
    grouped = share_interval(Units.of([1.0] * 80 + [0.0] * 20, [number // 10 for number in range(100)]), 100, 0)
    assert grouped.high - grouped.low > 0.4


@pytest.mark.parametrize(
    ("gained", "lost", "p_value"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 5, 1.0), (6, 0, 0.03125), (9, 2, 0.0654296875), (15, 5, 0.04138946533203125)],
)
def test_mcnemar_is_exact(gained: int, lost: int, p_value: float) -> None:
    assert mcnemar_p_value(gained, lost) == pytest.approx(p_value)
    assert mcnemar_p_value(lost, gained) == pytest.approx(p_value)


@pytest.mark.parametrize("siblings", [1, 10])
def test_sign_flips_reject_a_true_null_5_times_in_100(siblings: int) -> None:
    """Also if all ten items of a group share their fate."""
    generator = numpy.random.default_rng(2)
    ease = generator.beta(0.5, 0.5, (SIMULATIONS, 60))
    table = numpy.repeat((generator.binomial(8, ease) - generator.binomial(8, ease)) / 8, siblings, axis=1)
    names = numpy.repeat(range(60), siblings).tolist()
    p_values = [sign_flip_p_value(Units.of(row, names), 400, number) for number, row in enumerate(table)]
    assert fmean(p_value <= 0.05 for p_value in p_values) == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize(("gains", "low", "high"), [([0.0] * 9, 1, 1), ([0.5] * 30, 0, 0.001), ([0.1, -0.1], 1, 1)])
def test_sign_flips_of_clear_cases(gains: list[float], low: float, high: float) -> None:
    assert low <= sign_flip_p_value(Units.of(gains), 2000, 0) <= high


def test_detectable_difference_is_2_8_standard_errors() -> None:
    assert detectable_difference(Units.of([0.1])) is None
    assert detectable_difference(Units.of([0.0] * 5)) is None
    found = detectable_difference(Units.of([0.5, -0.5] * 200))
    assert found == pytest.approx(2.8016 * 0.5 * math.sqrt(400 / 399) / 20, rel=1e-3)
