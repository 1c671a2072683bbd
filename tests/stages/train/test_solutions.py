"""The solutions that rejection fine-tuning and distillation learn from."""

from dataclasses import replace
from pathlib import Path

import pytest

from dsrl.core.errors import StageFailed, UserError
from dsrl.core.parquet import write_table
from dsrl.data.model import Reply
from dsrl.data.sample import Provenance, Sample, new_sample
from dsrl.data.task import Task
from dsrl.graders import Number
from dsrl.llm import Endpoint
from dsrl.pipeline.context import Context
from dsrl.pipeline.state import PipelineState
from dsrl.stages.score.measure import GradedRollout
from dsrl.stages.train import Distill, Rft

TASK = Task(name="t", instruction="count", answer=Number(marker="####"))
ENDPOINT = Endpoint(model="m", base_url="http://127.0.0.1:1/v1")
ONE, TWO, THREE = (new_sample("t", f"question {i}", str(i), "initial", solution="of the teacher") for i in (1, 2, 3))


def state(
    *samples: Sample, chosen: tuple[Sample, ...] | None = None, files: dict[str, Path] | None = None
) -> PipelineState:
    selected = tuple(sample.id for sample in chosen or samples)
    return PipelineState(task=TASK, samples=samples, selected=selected, control=selected[:1], files=files or {})


def rollouts(folder: Path, *rows: tuple[Sample, str, str]) -> dict[str, Path]:
    """Write the side table of `score` from (sample, text, finish reason)."""
    graded = [
        GradedRollout(
            sample=sample.id, index=index, text=text, correct=text.endswith(f"#### {sample.answer}"), format_ok=True,
            parsed=None, finish_reason=reason, error=None,
        )
        for index, (sample, text, reason) in enumerate(rows)
    ]  # fmt: skip
    write_table(folder / "rollouts.parquet", graded, GradedRollout)
    return {"score/rollouts.parquet": folder / "rollouts.parquet"}


def test_rft_uses_the_first_different_correct_rollouts(tmp_path: Path, context: Context) -> None:
    files = rollouts(
        tmp_path,
        (ONE, "a #### 1", "stop"),
        (ONE, "b #### 9", "stop"),
        (ONE, "A  #### 1", "stop"),
        (TWO, "wrong #### 7", "stop"),
        (ONE, "cut #### 1", "length"),
        (ONE, "c #### 1", "stop"),
        (ONE, "d #### 1", "stop"),
        (THREE, "not chosen #### 3", "stop"),
    )
    given = state(ONE, TWO, THREE, chosen=(TWO, ONE), files=files)
    rows = Rft(per_sample=2).rows(given, context)
    assert [(row.id, row.solution) for row in rows] == [(ONE.id, "a #### 1"), (ONE.id, "c #### 1")]
    assert rows[0].prompt == TASK.prompt("question 1")
    assert [row.solution for row in Rft(per_sample=1).rows(given, context)] == ["a #### 1"]
    twice = replace(given, selected=(ONE.id, ONE.id))
    assert len(Rft(per_sample=1).rows(twice, context)) == 2, "a sample selected twice is trained on twice"


def test_rft_without_a_correct_rollout_fails(tmp_path: Path, context: Context) -> None:
    files = rollouts(tmp_path, (ONE, "b #### 9", "stop"))
    with pytest.raises(StageFailed, match="select=easiest"):
        Rft().rows(state(ONE, files=files), context)
    with pytest.raises(UserError, match=r"score/rollouts\.parquet"):
        Rft().rows(state(ONE), context)


def test_rft_needs_scored_samples() -> None:
    assert "score" in Rft().inputs
    assert len({Rft().key({}), Rft(per_sample=3).key({}), Distill().key({})}) == 3


def voted(sample: Sample, context: Context, *texts: str) -> Sample:
    """The sample with a draft and these votes in the cache of replies."""
    calls = []
    for prompt, replies in (("write one", ("draft",)), (TASK.prompt(sample.input), texts)):
        call = ENDPOINT.call(ENDPOINT.request([{"role": "user", "content": prompt}]))
        found = {index: Reply(text=text, call=call.id(index)) for index, text in enumerate(replies)}
        context.reply_cache.put(call.digest, call.identity, found, "m")
        calls += [call.id(index) for index in found]
    return sample.replace(provenance=Provenance(calls=tuple(calls)))


def test_distillation_uses_the_correct_votes(context: Context) -> None:
    sample = voted(ONE, context, "x #### 1", "y #### 2", "X #### 1", "z #### 1", "so #### 1.0", "hm")
    rows = Distill(per_sample=3).rows(state(sample), context)
    assert [row.solution for row in rows] == ["x #### 1", "z #### 1", "so #### 1.0"]
    assert {row.id for row in rows} == {sample.id}
    context.reply_cache.close()


def test_distillation_fails_if_a_reply_is_missing_from_the_cache(context: Context) -> None:
    sample = voted(ONE, context, "x #### 1")
    gone = sample.replace(provenance=Provenance(calls=(*sample.provenance.calls, "0" * 32 + ":0")))
    with pytest.raises(StageFailed, match=r"call 0{32}:0"):
        Distill().rows(state(gone), context)
    with pytest.raises(StageFailed, match="MajorityVote"):
        Distill().rows(state(ONE), context)
    context.reply_cache.close()


@pytest.mark.parametrize("stage", [Rft(train_on="gold"), Distill(train_on="gold")])
def test_gold_data_have_neither_rollouts_nor_votes(stage: Rft | Distill) -> None:
    with pytest.raises(UserError, match=r"train\.train_on=gold"):
        stage.check()
