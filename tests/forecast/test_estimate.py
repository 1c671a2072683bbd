import math
import random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsrl.forecast.estimate import Range, mean, share

VALUES = st.floats(0, 1e6)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Range(1, 2, 3) + Range(1, 1, 1), Range(2, 3, 4)),
        (Range(1, 2, 3) * 2, Range(2, 4, 6)),
        (Range(1, 2, 3) * Range(0, 1, 2), Range(0, 2, 6)),
        (Range(8, 8, 8) / Range(0.5, 0.8, 1.0), Range(8, 10, 16)),
        (Range(-1, 2, 9).within(0, 5), Range(0, 2, 5)),
        (Range.of(4), Range(4, 4, 4)),
        (mean([3, 3, 3, 3]), Range(3, 3, 3)),
        (mean([4]), Range(2, 4, 8)),
    ],
)
def test_arithmetic(found: Range, expected: Range) -> None:
    assert found == expected


@given(st.lists(VALUES, min_size=1, max_size=30))
def test_a_mean_is_inside_its_interval(values: list[float]) -> None:
    found = mean(values)
    assert 0 <= found.low <= found.expected + 1e-6
    assert found.expected <= found.high + 1e-6


def test_more_values_make_a_narrower_interval() -> None:
    few, many = mean([1.0, 3.0] * 3), mean([1.0, 3.0] * 50)
    assert few.expected == many.expected == 2.0
    assert many.high - many.low < (few.high - few.low) / 3


@given(st.integers(0, 50), st.integers(0, 50))
def test_a_share_is_between_0_and_1(hits: int, misses: int) -> None:
    found = share(hits, hits + misses, assumed=0.9)
    assert 0 <= found.low <= found.expected <= found.high <= 1


def test_the_prior_matters_for_few_cases_only() -> None:
    assert 0.9 < share(10, 10, assumed=0.9).expected < 1.0
    assert share(500, 1000, assumed=0.9).expected == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("size", [3, 10, 16, 40])
def test_the_interval_of_a_mean_covers_90_percent(size: int) -> None:
    rng = random.Random(size)
    found = [mean(rng.gauss(10, 2) for _ in range(size)) for _ in range(3000)]
    assert fmean(each.low <= 10 <= each.high for each in found) == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize("truth", [0.5, 0.7, 0.9])
def test_the_interval_of_a_share_covers_90_percent_for_many_cases(truth: float) -> None:
    trials = 400
    coverage = 0.0
    for hits in range(trials + 1):
        found = share(hits, trials, 0.9)
        chance = math.comb(trials, hits) * truth**hits * (1 - truth) ** (trials - hits)
        coverage += chance * (found.low <= truth <= found.high)
    assert coverage == pytest.approx(0.9, abs=0.02)
