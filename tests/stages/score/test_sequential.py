"""Early stopping of rollouts: the rule, and the stage that uses it."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from dsrl.core.component import component
from dsrl.core.digest import digest
from dsrl.core.errors import UserError
from dsrl.data.model import Model, Reply, Sampling
from dsrl.data.sample import new_sample
from dsrl.data.task import Task
from dsrl.forecast.estimate import Range
from dsrl.forecast.workload import ForecastState
from dsrl.graders import Number
from dsrl.llm import Endpoint
from dsrl.models.rollout import ServerRollout
from dsrl.models.rollout.protocols import Rollout
from dsrl.pipeline.context import Context
from dsrl.pipeline.state import PipelineState
from dsrl.stages.score import Score, Sequential
from dsrl.stages.score.early_stopping import (
    PartialCount,
    SelectionGoal,
    betabinom_pmf,
    cutoff,
    samples_to_stop,
    selection_risk,
)
from dsrl.stages.select import Learnable, PaperRanking

GOAL = SelectionGoal(m=10, low=0.0, high=1.0, error=0.01)
TASK = Task(name="t", instruction="count", answer=Number())


class Fixed(Model):
    def fingerprint(self) -> str:
        return "base"


@component("tests.test_waves.Chances")
class Chances(Rollout):
    """Question k is answered correctly with probability (k mod 10) / 9, with random numbers of its own."""

    def generate(
        self, model: Model, prompts: Sequence[str], sampling: Sampling, count: int, context: Context
    ) -> list[list[Reply]]:
        return [[reply(prompt.split()[1], index) for index in range(count)] for prompt in prompts]


def reply(number: str, index: int) -> Reply:
    right = random.Random(digest([number, index])).random() < int(number) % 10 / 9
    return Reply(text="#### 4" if right else "#### 5", finish_reason="stop")


def state(count: int = 100) -> PipelineState:
    samples = tuple(new_sample("t", f"question {number}", "4", "initial") for number in range(count))
    return PipelineState(task=TASK, base=Fixed(name="m", path="m"), samples=samples)


def stage(**dials: Any) -> Sequential:
    return Sequential(**{"rollout": Chances(), "rollouts": 64, "m": 20, **dials})


def test_betabinom_pmf() -> None:
    pmf = betabinom_pmf(2, 8, 24)
    assert sum(pmf) == pytest.approx(1)
    mean = sum(more * probability for more, probability in enumerate(pmf))
    assert mean == pytest.approx(24 * 2.5 / 9)


@pytest.mark.parametrize(
    ("count", "lowest", "highest"),
    [
        (PartialCount(8, 8, 56), 0.0, 0.001),  # far too easy
        (PartialCount(2, 8, 56), 0.3, 0.9),
        (PartialCount(0, 8, 56), 0.2, 0.9),  # perhaps never solved, perhaps wanted
        (PartialCount(0, 64, 0), 0.0, 0.0),
        (PartialCount(20, 64, 0), 0.0, 0.0),
        (PartialCount(3, 64, 0), 1.0, 1.0),
        (PartialCount(0, 0, 0), 1.0, 1.0),  # nothing came: never stopped for that
    ],
)
def test_selection_risk(count: PartialCount, lowest: float, highest: float) -> None:
    assert lowest <= selection_risk(count, GOAL, top=0.25) <= highest


def test_the_cutoff_ignores_samples_never_solved() -> None:
    assert cutoff([PartialCount(0, 8, 56)] * 1000, GOAL) is None
    assert cutoff([PartialCount(1, 8, 56)] * 5, GOAL) is None
    low = cutoff([PartialCount(1, 8, 56)] * 40, GOAL)
    high = cutoff([PartialCount(4, 8, 56)] * 40, GOAL)
    assert low is not None
    assert high is not None
    assert low < high


def test_risks_stay_within_the_allowance() -> None:
    counts = [PartialCount(1, 8, 56)] * 40 + [PartialCount(right, 8, 56) for right in range(2, 9)] * 10
    found = samples_to_stop(counts, range(len(counts)), GOAL, 0.0, 1.0)
    assert found
    assert sum(found.values()) <= GOAL.error * GOAL.m
    assert all(counts[place].correct > 1 for place in found)
    assert samples_to_stop(counts, range(len(counts)), GOAL, GOAL.error * GOAL.m, 1.0).keys() <= found.keys()


def test_fewer_replies_select_the_same_samples(context: Context) -> None:
    whole = Score(rollout=Chances(), rollouts=64)(state(), context)
    early = stage()(state(), context)
    rates = [sample.score for sample in early.samples if sample.score]
    assert {rate.num_rollouts for rate in rates} >= {8, 64}
    assert all(rate.censored == (rate.num_rollouts < 64) for rate in rates)
    never = [rate for rate in rates if rate.num_correct == 0]
    assert len(never) == 10
    assert all(rate.num_rollouts == 64 for rate in never)
    figures = early.figures["sequential"]
    assert figures["censored"] == sum(rate.censored for rate in rates)
    assert 0.2 < figures["saved"] < 0.9
    assert figures["drawn"] == sum(rate.num_rollouts for rate in rates)
    select = PaperRanking(m=20, n=100)
    assert select(early, context).selected == select(whole, context).selected
    assert stage()(state(), context).samples == early.samples


def test_no_early_stopping_if_all_samples_are_selected(context: Context) -> None:
    after = stage(m=100)(state(), context)
    assert not any(sample.score and sample.score.censored for sample in after.samples)


def test_check_refuses_other_selections_and_settings() -> None:
    select = Learnable(m=20, n=100)
    with pytest.raises(UserError, match="select=paper"):
        stage().check_pipeline({"score": stage(), "select": select})
    with pytest.raises(UserError, match="must grow"):
        stage(waves=(8, 8)).check()
    with pytest.raises(UserError, match="m=null"):
        stage(m=None).check()


def test_forecast() -> None:
    rollout = ServerRollout(endpoint=Endpoint(model="m", base_url="http://127.0.0.1:9/v1"))
    before = ForecastState(replace(state(0), samples=()), samples=Range.of(100))
    whole = Score(rollout=rollout, rollouts=64).forecast(before).workload
    early = stage(rollout=rollout).forecast(before).workload
    assert whole is not None
    assert early is not None
    assert early.output_tokens.low == pytest.approx(whole.output_tokens.low / 8)
    assert early.output_tokens.low < early.output_tokens.expected < whole.output_tokens.expected
    assert early.output_tokens.high == whole.output_tokens.high
