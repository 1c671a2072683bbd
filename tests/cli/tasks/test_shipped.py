"""The tasks that come with dsrl: data, grader, demos, and a README each."""

import json
import os
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from dsrl.cli.tasks.check import Report
from dsrl.cli.tasks.loading import Words, load
from dsrl.core.resources import home
from dsrl.data.task import Task
from dsrl.graders import Choice
from dsrl.graders.choice import option_texts
from dsrl.main import run_command

DATA = Path(__file__).parent / "data"
REAL = os.environ.get("DSRL_TEST_DATA")
SHIPPED = sorted(path.stem for path in (home() / "conf" / "task").glob("*.yaml") if path.stem != "adhoc")
ROWS = {"gsm8k": 3, "logiqa": 4, "cqa": 4, "pubmedqa": 3, "quickstart": 400, "quickstart_visual": 400}
"""Rows of our own; 20 for all others."""


@cache
def loaded(name: str) -> Task:
    """Composed once for all tests of it."""
    return load(words(name))


def words(name: str, **options: str) -> Words:
    files = list(DATA.glob(f"{name}.*"))
    local = {"task.test.path": str(files[0])} if files else {}
    return Words([name], {**local, "task.gold.path": '""', **options})


@pytest.mark.parametrize("name", SHIPPED)
def test_every_task_passes_its_own_check(name: str) -> None:
    said: list[str] = []
    report = Report(loaded(name), said.append, most=20 if DATA.joinpath(f"{name}.jsonl").exists() else 8)
    report.run()
    text = "\n".join(said)
    assert report.num_faults == 0, text
    assert f"{ROWS.get(name, 20):,} rows" in text
    assert "0 ill-formed" in text
    assert "wrongly accepted 0, wrongly rejected 0" in text


@pytest.mark.parametrize("name", SHIPPED)
def test_every_task_says_where_it_comes_from(name: str) -> None:
    readme = (home() / "tasks" / name / "README.md").read_text(encoding="utf-8").lower()
    for word in ("source", "licence", "split", "answer"):
        assert word in readme
    task = loaded(name)
    assert len(task.demos) == (0 if task.has_images else 3)  # a demo has no picture
    assert task.input_format
    assert task.domain
    assert task.test is not None
    assert task.test.licence
    assert task.test.size


def kind(name: str) -> object:
    """As its file has it: composing all tasks would slow down every collection of tests."""
    return yaml.safe_load((home() / "conf" / "task" / f"{name}.yaml").read_text(encoding="utf-8"))["answer"].get("kind")


@pytest.mark.parametrize("name", [name for name in SHIPPED if kind(name) == "choice"])
def test_demos_of_choices_look_like_test_questions(name: str) -> None:
    task = loaded(name)
    assert isinstance(task.answer, Choice)
    assert task.test is not None
    asked = [demo.input for demo in task.demos] + [item.input for item in task.test.load(task.answer)]
    read = [len(option_texts(text, task.answer.options)) for text in asked]
    assert set(read) == ({0} if name == "cfa" else {len(task.answer.options)})
    assert Counter(task.answer.gold(demo.output) for demo in task.demos).most_common(1)[0][1] == 1


def test_the_seven_subjects_of_math_share_one_budget() -> None:
    task = loaded("math")
    asked = Counter(task.turn(number).instruction.rpartition(": ")[2] for number in range(700))
    assert set(asked.values()) == {100}
    assert len(asked) == 7


@pytest.mark.parametrize(
    ("name", "file", "size", "most"),
    [
        ("gsm8k", "gsm8k_test.jsonl", 1319, 300),
        ("gsm8k", "gsm8k_train.jsonl", 7473, 300),
        ("logiqa", "logiqa_test.txt", 651, 651),
        ("cqa", "cqa_test.tsv", 396, 396),
        ("pubmedqa", "pubmedqa_labelled.json", 1000, 300),
    ],
)
def test_real_data_pass(name: str, file: str, size: int, most: int) -> None:
    _real(words(name, **{"task.test.path": _file(file)}), size, most)


@pytest.mark.parametrize(
    ("file", "size", "options"),
    [
        ("minerva_math_test.jsonl", 272, {"answer.kind": "math", "test.input": "problem", "test.output": "solution"}),
        (
            "sat_math_test.jsonl",
            32,
            {"answer.kind": "choice", "test.template": "'{question} {options}'", "test.output": "Answer"},
        ),
    ],
)
def test_real_data_of_no_task_of_ours_pass(file: str, size: int, options: dict[str, Any]) -> None:
    given = {"task.instruction": "Answer.", "task.test.path": _file(file)}
    _real(Words(["adhoc"], {**given, **{f"task.{key}": value for key, value in options.items()}}), size, 10)


def _file(name: str) -> str:
    if not REAL:
        pytest.skip(f"needs DSRL_TEST_DATA, a folder with {name}")
    return str(Path(REAL) / name)


def _real(given: Words, size: int, most: int) -> None:
    said: list[str] = []
    report = Report(load(given), said.append, most)
    report.run()
    assert report.num_faults == 0, "\n".join(said)
    assert f"{size:,} rows" in "\n".join(said)
    assert f"{size:,} of {size:,} gold answers grade themselves right" in "\n".join(said)


def test_the_list_has_kind_size_source_and_licence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["task", "ls"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    for name in SHIPPED:
        test = yaml.safe_load((home() / "conf" / "task" / f"{name}.yaml").read_text())["test"]
        for value in (test["path"], str(test["size"]), test["licence"]):
            assert value in lines[name]


def test_our_rows_are_in_the_official_layout() -> None:
    columns = {
        "math.jsonl": {"problem", "level", "type", "solution"},
        "medqa.jsonl": {"question", "answer", "options", "meta_info", "answer_idx", "metamap_phrases"},
        "cfa.jsonl": {"id", "query", "answer", "text", "choices", "gold"},
    }
    for name, wanted in columns.items():
        rows = [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]
        assert len(rows) == 20
        assert all(set(row) == wanted for row in rows)
