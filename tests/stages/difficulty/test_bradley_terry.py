import math
from collections import Counter

import numpy
import pytest

from dsrl.data.difficulty_tiers import rating_tier
from dsrl.stages.difficulty.bradley_terry import ELO, MIDDLE, Outcomes, draw_pairs, fit, make_outcomes, num_groups, rate


def simulated(strengths: numpy.ndarray, opponents: int, ties: float, seed: int = 0) -> Outcomes:
    """Outcomes between items with known ratings; `ties` is the share of undecided ones."""
    rng, met = numpy.random.default_rng(seed), draw_pairs(len(strengths), opponents, seed)
    first, second = (numpy.array([pair[side] for pair in met]) for side in (0, 1))
    chance = 1 / (1 + 10 ** ((strengths[second] - strengths[first]) / 400))
    score = (rng.random(len(met)) < chance).astype(float)
    score[rng.random(len(met)) < ties] = 0.5
    return Outcomes(first, second, score, len(strengths))


def ranks(values: numpy.ndarray) -> numpy.ndarray:
    return values.argsort().argsort()


def agreement(known: numpy.ndarray, found: numpy.ndarray) -> float:
    """Share of items in the same tier."""
    return float(numpy.mean([rating_tier(one) == rating_tier(other) for one, other in zip(known, found, strict=True)]))


@pytest.mark.parametrize(("ties", "least"), [(0.0, 0.8), (0.01, 0.8), (0.05, 0.8)])
def test_ratings_recover_known_strengths(ties: float, least: float) -> None:
    """The published code leaves 97 of 200 such items at exactly 1000 with 1 % ties."""
    known = numpy.random.default_rng(1).normal(MIDDLE, 200, 200)
    found = rate(simulated(known, 128, ties), ridge=0.01, bootstraps=8, seed=0)
    assert numpy.corrcoef(ranks(known), ranks(found.rating))[0, 1] > 0.97
    assert agreement(known, found.rating) > least
    assert not (found.rating == MIDDLE).any()
    assert (found.low < found.rating).all()
    assert (found.rating < found.high).all()


def test_fit_of_two_items_is_the_log_odds() -> None:
    """With three battles to one and hardly any ridge, the log-odds are log 3."""
    fought = make_outcomes([0, 0, 0, 1], [1, 1, 1, 0], [1, 1, 1, 1], 2)
    strength = fit(fought, numpy.ones(4), 1e-6)
    assert strength[0] - strength[1] == pytest.approx(math.log(3), abs=1e-3)
    assert strength.mean() == pytest.approx(0, abs=1e-6)


def test_only_items_without_battles_are_unrated() -> None:
    fought = make_outcomes([0, 0, 1, 1], [2, 2, 2, 0], [1, 1, 1, 0.5], 4)
    found = rate(fought, ridge=0.01, bootstraps=0, seed=0)
    assert rating_tier(found.rating[2]) == "easy"
    assert math.isfinite(found.rating[2])
    assert math.isnan(found.rating[3])
    assert rating_tier(found.rating[3]) is None
    assert num_groups(fought) == 1
    assert num_groups(make_outcomes([0, 2], [1, 3], [1, 1], 4)) == 2


def test_tiers_are_those_of_the_paper() -> None:
    assert [rating_tier(value) for value in (950.0, 950.1, 1049.9, 1050.0)] == ["easy", "medium", "medium", "hard"]
    assert rating_tier(None) is None
    assert pytest.approx(400) == ELO * math.log(10)


@pytest.mark.parametrize(("items", "opponents"), [(2, 128), (3, 1), (10, 4), (11, 4), (12, 128), (300, 32)])
def test_every_item_has_the_same_number_of_opponents(items: int, opponents: int) -> None:
    met = draw_pairs(items, opponents, 0)
    assert len({frozenset(pair) for pair in met}) == len(met)
    assert all(one != other for one, other in met)
    counts = Counter(item for pair in met for item in pair)
    wanted = min(opponents + opponents % 2, items - 1)
    assert set(counts.values()) == {wanted}
    assert len(counts) == items
    assert draw_pairs(items, opponents, 0) == met
    assert draw_pairs(items, opponents + 2, 0)[: len(met)] == met


def test_the_order_within_a_pair_is_random() -> None:
    met = draw_pairs(300, 32, 0)
    assert draw_pairs(300, 32, 1) != met
    firsts = Counter(first for first, _ in met)
    assert max(firsts.values()) < 32
