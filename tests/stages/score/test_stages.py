from collections.abc import Sequence
from typing import Any

import pytest

from dsrl.core.component import component
from dsrl.core.errors import UserError
from dsrl.core.parquet import read_table
from dsrl.data.model import Model, Reply, Sampling
from dsrl.data.sample import Rate, Sample, new_sample
from dsrl.data.task import Task
from dsrl.graders import Number
from dsrl.models.rollout.protocols import Rollout
from dsrl.pipeline.context import Context
from dsrl.pipeline.stage import SAMPLE_FIELDS
from dsrl.pipeline.state import PipelineState
from dsrl.stages.score import Probe, Score
from dsrl.stages.score.measure import GradedRollout

RIGHT = Reply(text="2+2=4\n#### 4", finish_reason="stop")
BARE = Reply(text="It is 4.", finish_reason="stop")
WRONG = Reply(text="#### 5", finish_reason="stop")
CUT = Reply(text="2+2 is", finish_reason="length")
LOST = Reply(text=None, error="no room for a reply")


@component("tests.test_stages.Scripted")
class Scripted(Rollout):
    """A model with prepared replies."""

    replies: Any

    def generate(
        self, model: Model, prompts: Sequence[str], sampling: Sampling, count: int, context: Context
    ) -> list[list[Reply]]:
        assert all(prompt.endswith(Number().instruction) for prompt in prompts)
        assert all(len(own) == count for own in self.replies)
        return list(self.replies)


class Fixed(Model):
    def fingerprint(self) -> str:
        return "base"


def state(*samples: Sample) -> PipelineState:
    task = Task(name="t", instruction="count", answer=Number())
    return PipelineState(task=task, base=Fixed(name="m", path="m"), samples=samples)


def asked(number: int, origin: Any = "initial", parent: Sample | None = None) -> Sample:
    return new_sample("t", f"question {number}", "4", origin, parent=parent)


def test_probe(context: Context) -> None:
    replies = [[RIGHT], [WRONG], [CUT], [LOST]]
    after = Probe(rollout=Scripted(replies=replies), max_tokens=9)(state(*map(asked, range(4))), context)
    assert [sample.probe and sample.probe.value for sample in after.samples] == [1.0, 0.0, 0.0, None]
    figures = {"rows": {"in": 4, "out": 4}, "solved": 1, "unsolved": 2, "undecided": 1, "truncated": 1}
    assert after.figures == figures
    assert all(sample.probe and sample.probe.temperature == 0 for sample in after.samples)


def test_a_failed_rollout_is_neither_correct_nor_wrong(context: Context) -> None:
    stage = Score(rollout=Scripted(replies=[[RIGHT, BARE, CUT, LOST]]), rollouts=4)
    (sample,) = stage(state(asked(0)), context).samples
    assert sample.score == Rate(
        model="base",
        num_rollouts=4,
        num_valid=3,
        num_correct=1,
        num_error=1,
        num_truncated=1,
        temperature=0.7,
        grader=Number().digest(),
    )


def test_graded_rollouts_are_written(context: Context) -> None:
    before = state(asked(0))
    Score(rollout=Scripted(replies=[[RIGHT, LOST]]), rollouts=2)(before, context)
    right, lost = read_table(context.scratch / "rollouts.parquet", GradedRollout)
    assert (right.sample, right.index, right.parsed, right.correct, right.error) == (
        before.samples[0].id,
        0,
        "4",
        True,
        None,
    )
    assert (lost.index, lost.text, lost.correct, lost.error) == (1, None, False, "no room for a reply")


def test_score_figures(context: Context) -> None:
    replies = [[RIGHT, RIGHT], [RIGHT, WRONG], [WRONG, WRONG], [LOST, LOST]]
    after = Score(rollout=Scripted(replies=replies), rollouts=2, low=0.5)(state(*map(asked, range(4))), context)
    figures = after.figures
    assert (figures["samples"], figures["rollouts"], figures["mean_pass_rate"]) == (4, 2, 0.5)
    assert (figures["zero"], figures["one"], figures["unmeasured"], figures["num_error"]) == (1, 1, 1, 2)
    assert figures["histogram"] == [0] * 10 + [1] + [0] * 9
    assert figures["band"] == {"low": 0.5, "high": 1.0, "samples": 0}


def test_figures_of_rewriting_by_direction(context: Context) -> None:
    solved, unsolved = asked(0), asked(1)
    probed = Probe(rollout=Scripted(replies=[[RIGHT], [WRONG]]))(state(solved, unsolved), context).samples
    children = (asked(2, "harder", probed[0]), asked(3, "easier", probed[1]))
    replies = [[RIGHT, RIGHT], [WRONG, WRONG], [RIGHT, WRONG], [RIGHT, RIGHT]]
    figures = Score(rollout=Scripted(replies=replies), rollouts=2)(state(*probed, *children), context).figures
    harder, easier = figures["rewriting"]["harder"], figures["rewriting"]["easier"]
    assert (harder["before"]["mean_pass_rate"], harder["after"]["mean_pass_rate"]) == (1.0, 0.5)
    assert harder["transitions"]["solved"] == {"zero": 0, "between": 1, "one": 0, "unmeasured": 0}
    assert easier["transitions"]["unsolved"] == {"zero": 0, "between": 0, "one": 1, "unmeasured": 0}
    assert set(figures["by_origin"]) == {"initial", "harder", "easier"}


def test_scoring_no_samples(context: Context) -> None:
    figures = Score(rollout=Scripted(replies=[]))(state(), context).figures
    assert (figures["samples"], figures["mean_pass_rate"]) == (0, None)


def test_check_refuses_an_empty_band() -> None:
    with pytest.raises(UserError, match="low must be less"):
        Score(rollout=Scripted(replies=[]), low=0.5, high=0.5).check()


def test_declared_outputs() -> None:
    assert [stage.outputs[-1] for stage in (Probe, Score)] == list(SAMPLE_FIELDS[:2])
