import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsrl.core.errors import StageFailed, UserError
from dsrl.data.sample import Rate, Sample, new_sample
from dsrl.data.source import Source
from dsrl.data.task import Task
from dsrl.graders import Number
from dsrl.pipeline.state import PipelineState
from dsrl.stages.train.job import read_rows, write_rows
from dsrl.stages.train.rows import device_batch_size, num_steps, training_order, training_rows, validation_rows


def scored_sample(number: int, correct: int | None) -> Sample:
    sample = new_sample("t", f"question {number}", str(number), "initial", solution=f"#### {number}")
    counts: dict[str, Any] = {"num_valid": 4, "num_correct": correct, "num_error": 0, "num_truncated": 0}
    if correct is None:
        return sample
    return sample.replace(score=Rate(model="m", num_rollouts=4, temperature=0.7, grader="g", **counts))


SAMPLES = tuple(scored_sample(number, number % 5 if number < 40 else None) for number in range(45))
TASK = Task(name="t", instruction="count", answer=Number())
STATE = PipelineState(
    task=TASK,
    samples=SAMPLES,
    selected=tuple(sample.id for sample in SAMPLES[:8]),
    control=tuple(sample.id for sample in SAMPLES[4:12]),
)


def test_rows_of_selected_samples_have_the_prompt_of_every_other_stage() -> None:
    rows = training_rows(STATE, "selected", None, 0)
    assert [row.id for row in rows] == list(STATE.selected)
    assert (rows[3].prompt, rows[3].answer, rows[3].solution) == (TASK.prompt("question 3"), "3", "#### 3")
    assert [row.id for row in training_rows(STATE, "control", None, 0)] == list(STATE.control)


def test_no_samples_to_train_on_fails_the_stage() -> None:
    with pytest.raises(StageFailed, match="selected: 0"):
        training_rows(replace(STATE, selected=()), "selected", None, 0)


def test_held_out_samples_have_reward_variance_and_are_not_trained_on() -> None:
    rows = validation_rows(STATE, 100, 0)
    by_id = {sample.id: sample for sample in SAMPLES}
    rates = [by_id[row.id].score for row in rows]
    assert all(rate and rate.value and 0 < rate.value < 1 for rate in rates)
    assert not {row.id for row in rows} & {*STATE.selected, *STATE.control}
    assert len(rows) == 17


def test_held_out_draw_depends_on_the_seed_but_not_on_the_order_of_samples() -> None:
    rows = validation_rows(STATE, 5, 3)
    assert rows == validation_rows(replace(STATE, samples=SAMPLES[::-1]), 5, 3)
    assert rows != validation_rows(STATE, 5, 4)
    assert validation_rows(STATE, 0, 3) == ()


def test_gold_rows_are_as_many_as_selected_samples(tmp_path: Path) -> None:
    path = tmp_path / "gold.jsonl"
    rows = [{"q": f"{number}?", "a": f"#### {number}" if number % 2 else f"{number}"} for number in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    gold = Source(path=str(path), input="q", output="a")
    drawn = training_rows(STATE, "gold", gold, 0)
    assert len(drawn) == len(STATE.selected)
    assert all(row.prompt == TASK.prompt(f"{row.answer}?") for row in drawn)
    assert all(row.solution == f"#### {row.answer}" for row in drawn), "a bare answer is written in the output format"
    assert drawn != training_rows(STATE, "gold", gold, 1)


def test_rows_survive_the_file(tmp_path: Path) -> None:
    rows = training_rows(STATE, "selected", None, 0)
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows


@given(st.integers(1, 30), st.integers(1, 5), st.integers(0, 3))
def test_each_epoch_sees_every_row_once(num_rows: int, epochs: int, seed: int) -> None:
    order = training_order(num_rows, num_rows * epochs, seed)
    for epoch in range(epochs):
        assert sorted(order[epoch * num_rows : (epoch + 1) * num_rows]) == list(range(num_rows))


def test_order_depends_on_seed_and_epoch_alone() -> None:
    assert training_order(9, 27, 1)[:12] == training_order(9, 12, 1)
    assert training_order(9, 9, 1) != training_order(9, 9, 2)
    assert training_order(9, 18, 1)[:9] != training_order(9, 18, 1)[9:]


@pytest.mark.parametrize(
    ("num_rows", "per_step", "epochs", "max_steps", "steps"),
    [(500, 4, 5, None, 625), (10, 4, 1, None, 2), (4, 4, 1, None, 1), (10, 4, 1, 7, 7)],
)
def test_number_of_updates(num_rows: int, per_step: int, epochs: int, max_steps: int | None, steps: int) -> None:
    assert num_steps(num_rows, per_step, epochs, max_steps, "rl.prompts_per_step") == steps


def test_fewer_rows_than_a_batch_is_an_error_with_both_numbers() -> None:
    with pytest.raises(UserError, match=r"3 samples, rl\.prompts_per_step=4"):
        num_steps(3, 4, 5, None, "rl.prompts_per_step")


@pytest.mark.parametrize(("limit", "per_step", "size"), [(None, 64, 64), (6, 16, 4), (1, 7, 1), (100, 12, 12)])
def test_device_batch_divides_an_update(limit: int | None, per_step: int, size: int) -> None:
    assert device_batch_size(limit, per_step) == size
