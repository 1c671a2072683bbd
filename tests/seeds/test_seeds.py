import json
from pathlib import Path

import pytest

from dsrl.context import Context
from dsrl.data import Source
from dsrl.errors import UserError
from dsrl.grade import Label, Number
from dsrl.seeds import Seeds
from dsrl.select import Blind
from dsrl.study import Study
from dsrl.task import Task
from dsrl.train.rows import gold_rows, validation_rows

TASK = Task(name="sums", instruction="Add.", answer=Number(marker="####"))


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """Twenty rows, the last of which repeats the first."""
    rows = [{"Input": f"{i} + 1?", "Output": f"{i}+1={i + 1} #### {i + 1}" if i % 2 else str(i + 1)} for i in range(19)]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    return Source(path=str(path), split="train")


def test_rows_become_samples_and_repeats_are_rejected(source: Source, context: Context) -> None:
    study = Seeds(source=source)(Study(task=TASK), context)
    assert len(study.samples) == 19
    assert [one.reason for one in study.rejected] == ["duplicate"]
    assert study.figures["rows"] == {"in": 20, "out": 19}
    by_input = {sample.input: sample for sample in study.samples}
    assert {sample.origin for sample in study.samples} == {"seed"}
    assert (by_input["3 + 1?"].answer, by_input["3 + 1?"].solution) == ("4", "3+1=4 #### 4")
    assert (by_input["2 + 1?"].answer, by_input["2 + 1?"].solution) == ("3", "#### 3")


def test_fewer_seeds_are_the_first_of_many_and_those_of_the_other_human_baseline(
    source: Source, context: Context
) -> None:
    few, many = (Seeds(source=source, n=n)(Study(task=TASK), context).samples for n in (5, None))
    assert few == many[:5]
    assert [row.prompt for row in gold_rows(TASK, source, 5, 0)] == [TASK.prompt(sample.input) for sample in few]
    assert Seeds(source=source, n=5, seed=1)(Study(task=TASK), context).samples != few


def test_labels_alone_are_learned_in_the_output_format(tmp_path: Path, context: Context) -> None:
    path = tmp_path / "train.csv"
    path.write_text("Input,Output\nIs it so?,yes\n")
    task = Task(name="t", instruction="Say.", answer=Label(labels=("yes", "no")))
    (sample,) = Seeds(source=Source(path=str(path)))(Study(task=task), context).samples
    assert sample.solution == "<answer>yes</answer>"


def test_the_key_follows_the_content_of_the_file(source: Source) -> None:
    before = Seeds(source=source).key({})
    assert Seeds(source=source).key({}) == before != Seeds(source=source, n=3).key({})
    Path(source.path).write_text('{"Input": "a", "Output": "1"}\n')
    assert Seeds(source=source).key({}) != before


def test_without_labelled_data_there_is_nothing_to_begin_with() -> None:
    for none in (None, Source()):
        with pytest.raises(UserError, match=r"seeds.source(.|\n)*task.gold.path"):
            Seeds(source=none).check()


def test_unscored_samples_that_were_not_taken_are_held_out(source: Source, context: Context) -> None:
    study = Seeds(source=source)(Study(task=TASK), context)
    study = Blind(m=8, n=1)(study, context)
    held_out = {row.id for row in validation_rows(study, 99, 0)}
    assert len(held_out) >= 3
    assert not held_out & {*study.selected, *study.control}
