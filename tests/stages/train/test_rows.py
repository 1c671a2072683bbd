import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsrl.core.errors import StageFailed
from dsrl.data.sample import Rate, Sample, new_sample
from dsrl.data.source import Source
from dsrl.data.task import Task
from dsrl.graders import Number
from dsrl.pipeline.state import PipelineState
from dsrl.stages.train.job import read_rows, write_rows
from dsrl.stages.train.rows import training_rows, validation_rows


def sample(number: int, correct: int | None) -> Sample:
    made = new_sample("t", f"question {number}", str(number), "initial", solution=f"#### {number}")
    counts: dict[str, Any] = {"num_valid": 4, "num_correct": correct, "num_error": 0, "num_truncated": 0}
    if correct is None:
        return made
    return made.replace(score=Rate(model="m", num_rollouts=4, temperature=0.7, grader="g", **counts))


SAMPLES = tuple(sample(number, number % 5 if number < 40 else None) for number in range(45))
TASK = Task(name="t", instruction="count", answer=Number())
STUDY = PipelineState(
    task=TASK,
    samples=SAMPLES,
    selected=tuple(sample.id for sample in SAMPLES[:8]),
    control=tuple(sample.id for sample in SAMPLES[4:12]),
)


def test_the_chosen_samples_are_asked_as_everywhere() -> None:
    rows = training_rows(STUDY, "selected", None, 0)
    assert [row.id for row in rows] == list(STUDY.selected)
    assert (rows[3].prompt, rows[3].answer, rows[3].solution) == (TASK.prompt("question 3"), "3", "#### 3")
    assert [row.id for row in training_rows(STUDY, "control", None, 0)] == list(STUDY.control)


def test_nothing_to_train_on_is_a_failure() -> None:
    with pytest.raises(StageFailed, match="no samples to train on"):
        training_rows(replace(STUDY, selected=()), "selected", None, 0)


def test_held_out_samples_can_be_learned_from_and_are_used_for_nothing_else() -> None:
    rows = validation_rows(STUDY, 100, 0)
    by_id = {sample.id: sample for sample in SAMPLES}
    rates = [by_id[row.id].score for row in rows]
    assert all(rate and rate.value and 0 < rate.value < 1 for rate in rates)
    assert not {row.id for row in rows} & {*STUDY.selected, *STUDY.control}
    assert len(rows) == 17


def test_the_held_out_draw_is_seeded_and_blind_to_the_order_of_samples() -> None:
    rows = validation_rows(STUDY, 5, 3)
    assert rows == validation_rows(replace(STUDY, samples=SAMPLES[::-1]), 5, 3)
    assert rows != validation_rows(STUDY, 5, 4)
    assert validation_rows(STUDY, 0, 3) == ()


def test_gold_data_come_in_the_same_number(tmp_path: Path) -> None:
    path = tmp_path / "gold.jsonl"
    rows = [{"q": f"{number}?", "a": f"#### {number}" if number % 2 else f"{number}"} for number in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    gold = Source(path=str(path), input="q", output="a")
    drawn = training_rows(STUDY, "gold", gold, 0)
    assert len(drawn) == len(STUDY.selected)
    assert all(row.prompt == TASK.prompt(f"{row.answer}?") for row in drawn)
    assert all(row.solution == f"#### {row.answer}" for row in drawn), "a bare answer is written in the output format"
    assert drawn != training_rows(STUDY, "gold", gold, 1)


def test_rows_survive_the_way_to_the_child(tmp_path: Path) -> None:
    rows = training_rows(STUDY, "selected", None, 0)
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows
