"""Intervals of shares and quantiles of Student's t, against scipy and published tables."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from dsrl.core.statistics import t_quantile, wilson_interval


@given(st.integers(1, 500), st.data())
def test_wilson_equals_scipy_s(trials: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, trials))
    expected = binomtest(hits, trials).proportion_ci(method="wilson")
    assert wilson_interval(hits / trials, trials) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_wilson_without_trials_knows_nothing() -> None:
    assert wilson_interval(0.0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("share", "trials"), [(0.5, 30), (0.1, 100), (0.95, 100), (0.98, 400)])
def test_wilson_covers_the_truth_95_times_in_100(share: float, trials: int) -> None:
    """By exact sums over all outcomes."""
    covered = 0.0
    for hits in range(trials + 1):
        low, high = wilson_interval(hits / trials, trials)
        chance = math.comb(trials, hits) * share**hits * (1 - share) ** (trials - hits)
        covered += chance * (low <= share <= high)
    assert covered == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(
    ("degrees", "level", "value"),
    [(1, 0.95, 12.706), (2, 0.95, 4.303), (29, 0.95, 2.045), (1, 0.9, 6.314), (15, 0.9, 1.753), (0, 0.95, math.inf)],
)
def test_t_quantiles_are_those_of_the_tables(degrees: int, level: float, value: float) -> None:
    assert t_quantile(degrees, level) == pytest.approx(value, abs=1e-3)
