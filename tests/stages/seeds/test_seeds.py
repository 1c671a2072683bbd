import json
from pathlib import Path
from typing import Any

import pytest

from dsrl.core.errors import StageFailed, UserError
from dsrl.data.model import Model
from dsrl.data.sample import Rate, new_sample
from dsrl.data.source import Source
from dsrl.data.task import Task
from dsrl.graders import Label, Number, Text
from dsrl.pipeline.state import PipelineState
from dsrl.stages.seeds import Seeds
from dsrl.stages.select import Augment, RandomUnscored, Replace, SeedsOnly
from dsrl.stages.train.rows import validation_rows
from tests.toys import context, said

ROWS: list[dict[str, Any]] = [
    {"q": "1 + 1?", "a": "It is 2.\n#### 2"},
    {"q": "2 + 2?", "a": "4"},
    {"q": "1 + 1?", "a": "2"},
    {"q": "3 + 3?", "a": None},
    {"q": "", "a": "3"},
    {"q": "4 + 4?", "a": "eight or so"},
    {"q": "In the test?", "a": "1"},
]


def source(folder: Path, rows: list[dict[str, Any]], **fields: Any) -> Source:
    path = folder / f"rows{len(list(folder.iterdir()))}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Source(**{"path": str(path), "input": "q", "output": "a", **fields})


def read(stage: Seeds, folder: Path, answer: Any = None) -> tuple[PipelineState, str]:
    task = Task(
        name="t",
        instruction="Add.",
        answer=answer or Number(),
        test=source(folder, [{"q": "In the  TEST?", "a": "1"}]),
    )
    where = context(folder)
    try:
        return stage(PipelineState(task=task, base=Model(name="m")), where), said(where)
    finally:
        where.close()


def test_every_row_is_a_seed_or_a_rejection(tmp_path: Path) -> None:
    found, words = read(Seeds(source=source(tmp_path, ROWS)), tmp_path)
    assert [(sample.input, sample.answer, sample.solution) for sample in found.samples] == [
        ("1 + 1?", "2", "It is 2.\n#### 2"),
        ("2 + 2?", "4", "#### 4"),
    ]
    assert {sample.origin for sample in found.samples} == {"seed"}
    assert [(one.reason, one.provenance.index) for one in found.rejected] == [
        ("duplicate", 2),
        ("no answer", 3),
        ("no question", 4),
        ("no readable answer", 5),
        ("a test item", 6),
    ]
    assert "seeds: 5 of 7 rows are unusable: 1 x duplicate, 1 x no answer" in words
    assert found.figures["rows"] == {"in": 7, "out": 2}


def test_a_bare_label_becomes_a_solution_in_the_output_format(tmp_path: Path) -> None:
    rows = source(tmp_path, [{"q": "Is it so?", "a": "yes"}])
    (sample,) = read(Seeds(source=rows), tmp_path, Label(labels=("yes", "no")))[0].samples
    assert sample.solution == "<answer>yes</answer>"


def test_unselected_seeds_are_held_out_for_validation(tmp_path: Path) -> None:
    rows = source(tmp_path, [{"q": f"{number} + 0?", "a": str(number)} for number in range(19)])
    state, where = read(Seeds(source=rows), tmp_path)[0], context(tmp_path)
    state = RandomUnscored(m=8, n=1)(state, where)
    where.close()
    held_out = {row.id for row in validation_rows(state, 99, 0)}
    assert len(held_out) >= 3
    assert not held_out & {*state.selected, *state.control}


def test_the_test_set_is_an_input_if_its_items_are_dropped(tmp_path: Path) -> None:
    stage = Seeds(source=source(tmp_path, ROWS), drop_test_items=False)
    assert "test" not in stage.inputs
    assert "test" in Seeds(source=None).inputs
    found, _ = read(stage, tmp_path)
    assert "In the test?" in [sample.input for sample in found.samples]


def test_no_usable_row_fails_the_stage(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="none of the 1 rows") as caught:
        read(Seeds(source=source(tmp_path, [ROWS[5]])), tmp_path)
    assert "1 x no readable answer; such as 'row 1: eight or so'" in str(caught.value)


def test_a_smaller_draw_is_part_of_a_larger_one(tmp_path: Path) -> None:
    rows = source(tmp_path, [{"q": f"{number} + 0?", "a": str(number)} for number in range(40)])
    drawn = [read(Seeds(source=rows, size=size), tmp_path)[0].samples for size in (10, 20)]
    assert (len(drawn[0]), len(drawn[1])) == (10, 20)
    assert {sample.id for sample in drawn[0]} < {sample.id for sample in drawn[1]}
    other = read(Seeds(source=rows, size=10, seed=1), tmp_path)[0].samples
    assert {sample.id for sample in other} != {sample.id for sample in drawn[0]}
    _, words = read(Seeds(source=rows, size=50), tmp_path)
    assert "fewer than seeds.size=50" in words


CHOICES = [
    {"q": "How long is it?", "o": ["3 m", "4 m"], "a": "B"},
    {"q": "Which of the following is true?", "o": ["this", "that"], "a": "A"},
    {"q": "Is it long?", "o": ["Yes", "No"], "a": "A"},
    {"q": "What is it?", "o": ["red", "blue"], "a": "Z"},
    {"q": "What colour?", "o": ["red", "blue"], "a": "A"},
]


def test_free_form_and_drop_yes_no(tmp_path: Path) -> None:
    stage = Seeds(source=source(tmp_path, CHOICES, options="o"), free_form=True, drop_yes_no=True)
    found, _ = read(stage, tmp_path, Text())
    assert [(sample.input, sample.answer) for sample in found.samples] == [
        ("How long is it?", "4 m"),
        ("What colour?", "red"),
    ]
    assert [one.reason for one in found.rejected] == ["needs its options", "yes or no", "no such option"]


def test_check_refuses_missing_source_or_options(tmp_path: Path) -> None:
    for stage, words in (
        (Seeds(source=None), "no labelled data"),
        (Seeds(source=source(tmp_path, CHOICES), free_form=True), "these have no options"),
    ):
        with pytest.raises(UserError, match=words):
            stage.check()


def test_the_key_depends_on_the_content_of_the_data(tmp_path: Path) -> None:
    keys = [Seeds(source=source(tmp_path, rows)).key({}) for rows in (ROWS, ROWS, ROWS[:2])]
    assert keys[0] == keys[1] != keys[2]


def test_augment_replace_and_seeds_only(tmp_path: Path) -> None:
    rate = Rate(
        model="m", num_rollouts=2, num_valid=2, num_correct=1, num_error=0, num_truncated=0, temperature=1.0, grader="g"
    )
    seeds = [new_sample("t", f"s{number}", "1", "seed") for number in range(3)]
    pool = (*seeds, new_sample("t", "v", "1", "harder", parent=seeds[1]))
    state = PipelineState(
        task=Task(name="t", instruction="Add.", answer=Number()),
        samples=tuple(sample.replace(score=rate) for sample in pool),
    )
    where = context(tmp_path)
    for stage, texts in (
        (Augment(n=1), {"s0", "s1", "s2", "v"}),
        (Replace(n=1), {"s0", "s2", "v"}),
        (SeedsOnly(n=1), {"s0", "s1", "s2"}),
    ):
        after = stage(state, where)
        assert {sample.input for sample in after.chosen(after.selected)} == texts
        assert after.figures["shortfall"] == 0
    where.close()
