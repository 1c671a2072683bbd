"""The numbers behind a comparison, against known values and by simulation."""

import math
from statistics import fmean

import numpy
import pytest

from dsrl.core.estimate import wilson
from dsrl.stages.evaluate.statistics import detectable, mcnemar, sign_flip_p_value

SIMULATIONS = 1000


@pytest.mark.parametrize(
    ("gained", "lost", "p_value"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 5, 1.0), (6, 0, 0.03125), (9, 2, 0.0654296875), (15, 5, 0.04138946533203125)],
)
def test_mcnemar(gained: int, lost: int, p_value: float) -> None:
    assert mcnemar(gained, lost) == mcnemar(lost, gained) == pytest.approx(p_value)


def test_mcnemar_of_many_items() -> None:
    assert 0 < mcnemar(3000, 2500) < 1e-8


@pytest.mark.parametrize(
    ("successes", "trials", "interval"),
    [(0, 0, (0, 1)), (0, 10, (0, 0.27754)), (10, 10, (0.72246, 1)), (8, 10, (0.49016, 0.94332))],
)
def test_wilson(successes: int, trials: int, interval: tuple[float, float]) -> None:
    assert wilson(successes / max(trials, 1), trials) == pytest.approx(interval, abs=1e-4)


def test_sign_flips_reject_a_true_null_5_times_in_100() -> None:
    generator = numpy.random.default_rng(2)
    ease = generator.beta(0.5, 0.5, (SIMULATIONS, 60))
    gains = (generator.binomial(8, ease) - generator.binomial(8, ease)) / 8
    p_values = [sign_flip_p_value(row.tolist(), 400, number) for number, row in enumerate(gains)]
    assert fmean(p_value <= 0.05 for p_value in p_values) == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize(("gains", "low", "high"), [([0.0] * 9, 1, 1), ([0.5] * 30, 0, 0.001), ([0.1, -0.1], 1, 1)])
def test_sign_flip_bounds(gains: list[float], low: float, high: float) -> None:
    assert low <= sign_flip_p_value(gains, 2000, 0) <= high


def test_detectable_difference() -> None:
    assert detectable([0.1]) is None
    assert detectable([0.0] * 5) is None
    spread = [0.5, -0.5] * 200
    assert detectable(spread) == pytest.approx(2.8016 * 0.5 * math.sqrt(400 / 399) / 20, rel=1e-3)
