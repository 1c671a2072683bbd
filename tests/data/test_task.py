import json
from pathlib import Path
from typing import Any

import pytest

from dsrl.core.digest import digest
from dsrl.data.source import Source
from dsrl.data.task import Contamination, Demo, Task
from dsrl.graders import Choice, Number


def task(**fields: Any) -> Task:
    return Task(**{"name": "sums", "instruction": "Add.", "answer": Number(), **fields})


def test_prompt_ends_with_the_answer_instruction() -> None:
    assert task().prompt("1 + 1?") == f"1 + 1?\n\n{Number().instruction}"
    told = task(output_format="Be brief.").prompt("1 + 1?")
    assert told == f"1 + 1?\n\nBe brief. {Number().instruction}"


@pytest.mark.parametrize(
    "demos", [[{"input": "a", "output": "b"}], ({"input": "a", "output": "b"},), [Demo(input="a", output="b")]]
)
def test_demos_inline_or_from_a_file(demos: Any, tmp_path: Path) -> None:
    path = tmp_path / "demos.jsonl"
    path.write_text(json.dumps({"input": "a", "output": "b", "note": "more fields do no harm"}) + "\n")
    assert task(demos=demos).demos == task(demos=str(path)).demos == (Demo(input="a", output="b"),)


@pytest.mark.parametrize("demos", [["a"], [{"input": "a"}], [{"input": "a", "output": 3}], [None]])
def test_incomplete_demo_is_reported_by_number(demos: list[Any]) -> None:
    with pytest.raises(ValueError, match="demo 2 has no text"):
        task(demos=[{"input": "a", "output": "b"}, *demos])


def test_data_set_without_a_path_is_none() -> None:
    assert task(test=Source(), gold=Source()).test is None
    assert task(test=Source(path="x")).test == Source(path="x")


def test_definition_excludes_data_sets() -> None:
    plain = digest(task().definition())
    assert digest(task(test=Source(path="x"), gold=Source(path="y")).definition()) == plain
    changes: list[dict[str, Any]] = [
        {"instruction": "Subtract."},
        {"demos": [{"input": "a", "output": "b"}]},
        {"input_format": "A sum."},
        {"output_format": "Be brief."},
        {"domain": "arithmetic"},
        {"answer": Number(marker="=")},
        {"name": "other"},
    ]
    assert len({plain, *(digest(task(**change).definition()) for change in changes)}) == 1 + len(changes)


def test_format_depends_on_answer_and_output_format_only() -> None:
    plain = digest(task().format())
    for change in ({"instruction": "Subtract."}, {"demos": [{"input": "a", "output": "b"}]}, {"domain": "x"}):
        assert digest(task(**change).format()) == plain
    for change in ({"output_format": "Be brief."}, {"answer": Choice()}, {"answer": Number(tolerance=1)}):
        assert digest(task(**change).format()) != plain


def test_candidates_cycle_through_the_subjects() -> None:
    shared = task(subjects=("algebra", "geometry", "logic"))
    asked = [shared.turn(number).instruction.rpartition(": ")[2] for number in range(7)]
    assert asked == ["algebra.", "geometry.", "logic."] * 2 + ["algebra."]
    assert task().turn(5) is not None
    assert task().turn(5).instruction == "Add."


def test_subjects_are_in_the_definition() -> None:
    plain = digest(task().definition())
    assert digest(task(contamination=Contamination(policy="keep")).definition()) == plain
    assert digest(task(subjects=("algebra",)).definition()) != plain


@pytest.mark.parametrize("ngrams", [(1,), (13, 13), (0, 8)])
def test_ngram_sizes_are_distinct_and_at_least_two(ngrams: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"task\.contamination\.ngrams"):
        Contamination(ngrams=ngrams)


def test_num_demos_takes_the_first_demos() -> None:
    demos = [{"input": f"{number}", "output": "1"} for number in range(5)]
    assert task(demos=demos, num_demos=2).demos == task(demos=demos[:2]).demos
    assert task(demos=demos, num_demos=0).demos == ()
    assert task(demos=demos, num_demos=2).definition() == task(demos=demos[:2]).definition()
    assert task(demos=demos, num_demos=2, subjects=["a", "b"]).turn(1).demos == task(demos=demos[:2]).demos


def test_num_demos_above_the_number_of_demos_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"task.num_demos: sums(.|\n)*dsrl task demos sums"):
        task(demos=[{"input": "a", "output": "1"}], num_demos=2)
    with pytest.raises(ValueError, match="num_demos"):
        task(num_demos=-1)
