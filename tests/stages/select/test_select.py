"""Which samples are selected, in which order, and the warnings if there are too few."""

import dataclasses
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dsrl.core.errors import StageFailed
from dsrl.core.resources import home
from dsrl.data.sample import Rate, Sample, new_sample
from dsrl.data.task import Task
from dsrl.forecast.estimate import Range
from dsrl.forecast.workload import ForecastState
from dsrl.graders import Number
from dsrl.pipeline.context import Context
from dsrl.pipeline.state import PipelineState
from dsrl.stages.select import (
    AllScored,
    Augment,
    Easiest,
    Hardest,
    Learnable,
    PaperRanking,
    Probability,
    RandomChoice,
    RandomUnscored,
    Replace,
    SeedsOnly,
    Select,
)
from dsrl.stages.select.base import pass_rate

TASK = Task(name="stories", instruction="Answer stories.", answer=Number())
RATES = (0, 1, 2, 3, 4, 5, 6, 7, 8)
STRATEGIES = (
    PaperRanking,
    Learnable,
    Hardest,
    Easiest,
    RandomChoice,
    AllScored,
    Probability,
    RandomUnscored,
    Augment,
    Replace,
    SeedsOnly,
)


def scored(text: str, num_correct: int, num_valid: int = 8) -> Sample:
    score = Rate(
        model="m", num_rollouts=8, num_valid=num_valid, num_correct=num_correct, num_error=8 - num_valid,
        num_truncated=0, temperature=0.7, grader="g",
    )  # fmt: skip
    return new_sample("stories", text, "1", "initial").replace(score=score)


def study_of(rates: tuple[int, ...], copies: int = 1, task: Task = TASK) -> PipelineState:
    """`copies` samples for each number of correct rollouts out of eight."""
    samples = (scored(f"story {number} {copy}", number) for number in rates for copy in range(copies))
    return PipelineState(task=task, samples=tuple(samples))


def chosen_rates(state: PipelineState) -> list[float]:
    return [8 * pass_rate(sample) for sample in state.chosen(state.selected)]


def said(context: Context) -> str:
    return context.progress.stream.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("cls", "dials", "expected"),
    [
        (PaperRanking, {}, [1, 2, 3, 4]),
        (PaperRanking, {"low": 0.25, "high": 0.75}, [3, 4, 5]),
        (Learnable, {"m": 1}, [4]),
        (Learnable, {"low": 0.0, "high": 0.5, "m": 1}, [2]),
        (Hardest, {}, [0, 1, 2, 3]),
        (Easiest, {}, [8, 7, 6, 5]),
    ],
)
def test_order(cls: type[Select], dials: dict[str, Any], expected: list[int], context: Context) -> None:
    state = cls(**{"m": 4, "n": 9, **dials})(study_of(RATES), context)
    assert chosen_rates(state) == expected


def test_learnable_takes_the_middle_first(context: Context) -> None:
    state = Learnable(m=7, n=9)(study_of(RATES), context)
    assert [abs(8 * pass_rate(sample) - 4) for sample in state.chosen(state.selected)] == [0, 1, 1, 2, 2, 3, 3]


def test_all_scored_and_random_choice(context: Context) -> None:
    state = study_of(RATES, 20)
    assert len(AllScored(n=9)(state, context).selected) == 180
    first, again, other = (RandomChoice(m=50, n=9, seed=seed)(state, context).selected for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("cls", STRATEGIES)
@settings(deadline=None)
@given(order=st.randoms(use_true_random=False))
def test_rankings_do_not_depend_on_the_order_of_samples(cls: type[Select], order: random.Random) -> None:
    samples = list(study_of((1, 4, 7), 3).samples)
    stage = cls(**({} if cls is AllScored else {"m": 4}), n=9)
    expected = stage.ranking(samples)
    order.shuffle(samples)
    assert stage.ranking(samples) == expected


def test_control_is_a_random_set_of_the_same_size(context: Context) -> None:
    state = PaperRanking(m=40, n=9)(study_of(RATES, 30), context)
    control = state.chosen(state.control)
    assert len(set(state.control)) == len(state.selected) == 40
    assert {pass_rate(sample) for sample in control} >= {0.0, 1.0}
    assert PaperRanking(m=40, n=9, seed=1)(state, context).control != state.control


def test_a_shortfall_gives_a_warning_with_a_suggested_n(context: Context) -> None:
    state = PaperRanking(m=20, n=30)(study_of(RATES), context)
    assert len(state.selected) == len(state.control) == 7
    assert state.figures["shortfall"] == 13
    assert state.figures["suggested_n"] == 86
    assert state.figures["rows"] == {"in": 9, "out": 7}
    assert "WARNING select: only 7 of the 20 samples asked for" in said(context)
    assert "1 never solved, 1 always, 7 sometimes" in said(context)
    assert "n=86 would give about 20" in said(context)


def test_enough_samples_give_no_warning(context: Context) -> None:
    figures = PaperRanking(m=7, n=9)(study_of(RATES), context).figures
    assert said(context) == ""
    assert (figures["strategy"], figures["shortfall"], figures["suggested_n"]) == ("paper_ranking", 0, None)
    assert figures["mean_rate"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("fill", "dials", "expected"),
    [
        ("unsolved", {}, [1, 2, 3, 4, 5, 6, 7, 0]),
        ("solved", {}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ("unsolved", {"low": 0.3, "high": 0.6}, [3, 4, 2, 1, 0]),
        ("solved", {"low": 0.3, "high": 0.6}, [3, 4, 5, 6, 7, 8]),
        ("solved", {"low": 0.3, "high": 0.6, "m": 3}, [3, 4, 5]),
    ],
)
def test_fill(fill: str, dials: dict[str, Any], expected: list[int], context: Context) -> None:
    state = PaperRanking(**{"m": 8, "n": 9, "fill": fill, **dials})(study_of(RATES), context)
    assert chosen_rates(state) == expected
    assert f"of them {fill}" in said(context)
    in_band = [number for number in expected if 8 * dials.get("low", 0) < number < 8 * dials.get("high", 1)]
    assert state.figures["filled"] == len(expected) - len(in_band)


def test_fill_both(context: Context) -> None:
    state = PaperRanking(m=40, n=9, fill="both")(study_of((0, 4, 8), 20), context)
    rates = chosen_rates(state)
    assert rates[:20] == [4] * 20
    assert set(rates[20:]) == {0, 8}
    assert "20 of them unsolved or solved" in said(context)


def test_probability_prefers_hard_samples_and_repeats_them(context: Context) -> None:
    state = Probability(m=4000, n=9)(study_of(RATES, 3), context)
    counts = Counter(chosen_rates(state))
    total = sum(1 - number / 8 + 1e-3 for number in range(1, 8))
    for number in range(1, 8):
        share = (1 - number / 8 + 1e-3) / total
        assert counts[number] / 4000 == pytest.approx(share, abs=0.03), number
    assert set(counts) == {1, 2, 3, 4, 5, 6, 7}
    assert (state.figures["selected"], state.figures["distinct"], state.figures["shortfall"]) == (4000, 21, 0)
    assert len(state.control) == 27, "the control set has no repeats"
    assert Probability(m=9, n=9, seed=1)(study_of(RATES), context).selected != state.selected[:9]


def test_probability_without_a_sample_in_the_band_fails(context: Context) -> None:
    with pytest.raises(StageFailed, match="nothing to train on"):
        Probability(m=4, n=9)(study_of((0, 8)), context)


def test_random_unscored(context: Context) -> None:
    samples = tuple(new_sample("stories", f"story {number}", "1", "seed") for number in range(30))
    some = RandomUnscored(m=10, n=30)(PipelineState(task=TASK, samples=samples), context)
    assert len(set(some.selected)) == 10
    assert some.figures["mean_rate"] is None
    assert len(RandomUnscored(m=None, n=30)(PipelineState(task=TASK, samples=samples), context).selected) == 30
    RandomUnscored(m=40, n=30)(PipelineState(task=TASK, samples=samples), context)
    assert "only 30 of the 40 samples asked for (30 samples, none of them scored" in said(context)
    assert "score" not in RandomUnscored(m=1, n=1).inputs


@pytest.mark.parametrize(("m", "expected"), [(10, 10), (60, 40), (None, 40)])
def test_random_unscored_forecast(m: int | None, expected: int) -> None:
    before = ForecastState(PipelineState(task=TASK), samples=Range.of(40))
    assert RandomUnscored(m=m, n=40).forecast(before).after.selected.expected == expected


def test_fill_error_fails(context: Context) -> None:
    with pytest.raises(StageFailed, match=r"only 7 of the 20 samples.*\n.*n=26 would give about 20; or give fill=none"):
        PaperRanking(m=20, n=9, fill="error")(study_of(RATES), context)


@pytest.mark.parametrize(
    ("rates", "words"),
    [((0, 0, 0), "3 scored: 3 never solved, 0 always"), ((8, 8), "0 never solved, 2 always"), ((), "0 scored")],
)
def test_nothing_to_train_on_fails(rates: tuple[int, ...], words: str, context: Context) -> None:
    samples = tuple(scored(f"story {place}", number) for place, number in enumerate(rates))
    with pytest.raises(StageFailed, match=f"nothing to train on\n  got:     .*{words}"):
        PaperRanking(m=5, n=5)(PipelineState(task=TASK, samples=samples), context)


def test_samples_without_a_rate_are_not_selected(context: Context) -> None:
    nothing_came, unscored = scored("a", 0, num_valid=0), new_sample("stories", "b", "1", "initial")
    state = Hardest(m=5, n=9)(PipelineState(task=TASK, samples=(scored("c", 4), nothing_came, unscored)), context)
    assert len(state.selected) == len(state.control) == 1
    assert state.figures["unscored"] == 2


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.5), (0.6, 0.4), (-0.1, 1.0), (0.0, 1.1)])
def test_an_empty_or_invalid_band_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match=r"low|high"):
        PaperRanking(m=5, n=5, low=low, high=high)


@pytest.mark.parametrize("path", sorted((home() / "conf" / "select").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_lists_every_field(path: Path) -> None:
    node = yaml.safe_load(path.read_text())
    target = node.pop("_target_")
    cls = next(cls for cls in STRATEGIES if target == f"dsrl.stages.select.{cls.__name__}")
    assert set(node) == {field.name for field in dataclasses.fields(cls)}
