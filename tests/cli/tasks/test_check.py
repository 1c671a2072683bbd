"""What the check says of tasks that aren't fit for use."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml

from dsrl.cli.tasks.check import Report
from dsrl.cli.tasks.validate import near_misses
from dsrl.core.component import component
from dsrl.data.source import Item, Source
from dsrl.data.task import Task
from dsrl.graders import Grader
from dsrl.main import run_command
from dsrl.pipeline.config import build

DEFINITION: dict[str, Any] = {
    "name": "mine",
    "instruction": "Add.",
    "answer": {"kind": "number"},
    "demos": [{"input": "1 + 1?", "output": "#### 2"}],
}
ROWS = [{"q": "2 + 2?", "a": "4"}, {"q": "3 + 4?", "a": "7"}]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def check(definition: dict[str, Any], rows: list[dict[str, Any]] | None = None, *arguments: str) -> int:
    """`dsrl task check` of this task with this test set."""
    if rows is not None:
        Path("test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        definition = {
            **definition,
            "test": {"path": "test.jsonl", "input": "q", "output": "a", **definition.get("test", {})},
        }
    Path("conf/task").mkdir(parents=True, exist_ok=True)
    Path("conf/task/mine.yaml").write_text(yaml.safe_dump(definition))
    return run_command(["task", "check", "mine", "--config-dir", "conf", *arguments])


def test_a_sound_task_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert check(DEFINITION, ROWS) == 0
    said = capsys.readouterr().out
    assert "2 of 2 gold answers grade themselves right" in said
    assert "  | 2 + 2?" in said
    assert "-> right; correct True" in said
    assert "-> wrong; correct False, format True" in said


@pytest.mark.parametrize(
    ("change", "rows", "words"),
    [
        ({}, [*ROWS, {"q": "Who?", "a": "Ada"}], ["3 rows, 1 ill-formed", "row 3: gold answers can't be read"]),
        ({}, [*ROWS, {"q": "", "a": "1"}], ["row 3: rows have no question"]),
        ({}, [{"q": "1?"}], ["not checked: test.jsonl has no column a", "columns q"]),
        ({}, [], ["not checked: data set test.jsonl is empty"]),
        ({"demos": [{"input": "1?", "output": "one"}]}, ROWS, ["demo 1: its output holds no answer", "'one'"]),
        ({"demos": DEFINITION["demos"] * 2}, ROWS, ["demo 2: its input stands there before"]),
        (
            {"answer": {"kind": "choice", "options": "ABCD"}, "demos": []},
            [{"q": "Which?\nA. one\nB. two", "a": "D"}],
            ["row 1: gold answers name none of the options"],
        ),
        ({"demos": []}, None, ["grader   can't be proved"]),
    ],
)
def test_what_is_wrong_with_a_task_is_listed(
    change: dict[str, Any], rows: list[dict[str, Any]] | None, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert check({**DEFINITION, **change}, rows) == 1
    said = capsys.readouterr().out
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"demos": [{"input": "1?"}]}, ["demo 1"]),
        ({"answer": {"kind": "prose"}}, ["task.answer.kind: no such answer kind", "number"]),
        ({"answer": {"kind": "number", "tolerence": 1}}, ["task.answer.tolerence: unknown key", "`tolerance`"]),
        ({"answer": {"kind": "choice", "options": "AAB"}}, ["letter A"]),
        ({"instrution": "x"}, ["task.instrution: unknown key", "`instruction`"]),
        ({"test": {"path": "x.csv", "format": "spyder"}}, ["task.test.format", "spyder"]),
        ({"contamination": {"policy": "burn"}}, ["task.contamination.policy", "burn"]),
        ({"subjects": "algebra"}, ["task.subjects"]),
    ],
)
def test_a_mistake_in_the_file_names_its_key(
    change: dict[str, Any], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert check({**DEFINITION, **change}) == 2
    said = capsys.readouterr().err
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["task"], "dsrl task ls"),
        (["task", "prove"], "check NAME"),
        (["task", "check"], "dsrl task ls"),
        (["task", "check", "nope"], "quickstart"),
        (["task", "check", "adhoc"], "task.instruction is missing"),
        (["task", "check", "gsm8k", "items=few"], "a number, or all"),
        (["task", "check", "gsm8k", "--config-dir"], "--config-dir FOLDER"),
        (["task", "check", "gsm8k", "--config-dir", "nowhere"], "no such folder"),
        (["task", "check", "gsm8k", "--fast"], "unknown flag"),
        (["task", "check", "gsm8k", "task.tset.path=x"], "task.tset"),
        (["task", "ls", "gsm8k"], "takes no names"),
    ],
)
def test_a_mistyped_line_is_told(arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(arguments) == 2
    assert word in capsys.readouterr().err


@component("tests.test_check.Lenient")
class Lenient(Grader):
    """Finds the right answer wherever the reply holds any digit: no grader to be trusted."""

    @property
    def instruction(self) -> str:
        return "Answer with 1, 2 or 3."

    def parse(self, reply: str) -> str | None:
        return reply if any(character.isdigit() for character in reply) else None

    def parse_anywhere(self, reply: str) -> str | None:
        return self.parse(reply)

    def write(self, answer: str) -> str:
        return answer

    def same(self, first: str, second: str) -> bool:
        return True


def test_a_grader_that_accepts_too_much_is_found_out() -> None:
    said: list[str] = []
    demos = [{"input": "One?", "output": "1"}, {"input": "Two?", "output": "2"}]
    report = Report(Task(name="t", instruction="Count.", answer=Lenient(), demos=demos), said.append)  # type: ignore[arg-type]
    report.run()
    assert report.num_faults
    assert any("wrongly accepted: 'One?" in line for line in said)


class Deaf(Lenient):
    """Doesn't read back what it writes."""

    def write(self, answer: str) -> str:
        return "the answer"

    def gold(self, text: str) -> str | None:
        return text


def test_a_grader_that_rejects_its_own_gold_is_told_by_its_rows(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    said: list[str] = []
    test = Source(path="test.jsonl", input="q", output="a")
    Report(Task(name="t", instruction="Count.", answer=Deaf(), test=test), said.append).run()
    assert "  0 of 2 gold answers grade themselves right" in said
    assert "    row 2: the grader calls its own gold answer '7' no answer" in said


def test_a_set_of_another_size_than_the_task_says_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert check({**DEFINITION, "test": {"size": 1319}}, ROWS) == 0
    assert "2 rows, not 1,319 as the task says, 0 ill-formed" in capsys.readouterr().out


KINDS: list[tuple[dict[str, Any], str, list[str]]] = [
    ({"kind": "text"}, "Where?", ["Oslo", "Rome"]),
    ({"kind": "span"}, "Ada met Ben in Rome.", ["Rome", "Ada"]),
    ({"kind": "list"}, "Which?", ['["a", "b"]', '["c"]']),
    ({"kind": "set", "item": {"kind": "number"}}, "Which?", ['["1", "2"]', '["3"]']),
    ({"kind": "json", "fields": {"age": {"kind": "number"}, "name": {"kind": "text"}}}, "Who?",
     ['{"age": "3", "name": "Ada"}', '{"age": "4", "name": "Ben"}']),
    ({"kind": "regex", "pattern": "Answer: (.*)", "form": "Answer: {answer}", "example": "x"}, "Which?", ["x", "y"]),
    ({"kind": "number", "units": ["dollars", "$"]}, "How much?", ["18", "0"]),
    ({"kind": "number", "relative_tolerance": 0.5}, "How much?", ["18", "-7/20"]),
    ({"kind": "label", "labels": ["yes", "no"], "synonyms": {"yes": ["aye"]}}, "Is it?", ["yes", "no"]),
    ({"kind": "code"}, "Write f.", ["def f(): return 1\n# tests\nassert f() == 1", "# tests\nassert f() == 2"]),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "question", "golds"), KINDS, ids=lambda value: str(value)[:24])
def test_every_kind_stands_its_near_misses(answer: dict[str, Any], question: str, golds: list[str]) -> None:
    task = build({"_target_": "dsrl.data.Task", "name": "t", "instruction": "x", "answer": answer}, "task")
    cases = near_misses(task, [Item(input=question, answer=gold) for gold in golds])
    assert len(cases) >= 5
    assert [(case.name, case.wrong) for case in cases if case.wrong] == []


def test_questions_to_databases_in_files(capsys: pytest.CaptureFixture[str]) -> None:
    """As `tasks/text_to_sql/README.md` tells users of Spider and BIRD."""
    from dsrl.core.resources import home

    folder = Path("spider/database/pets")
    folder.mkdir(parents=True)
    with sqlite3.connect(folder / "pets.sqlite") as connection:
        connection.executescript(
            "CREATE TABLE pet (name TEXT, age INTEGER); INSERT INTO pet VALUES ('Rex', 3), ('Kit', 5);"
        )
    connection.close()
    rows = [
        {"question": "Who is the oldest?", "db_id": "pets", "query": "SELECT name FROM pet ORDER BY age DESC LIMIT 1"},
        {"question": "How many pets are there?", "db_id": "pets", "query": "SELECT COUNT(*) FROM pet"},
    ]
    Path("spider/dev.json").write_text(json.dumps(rows))
    readme = (home() / "tasks" / "text_to_sql" / "README.md").read_text(encoding="utf-8")
    lines = readme.partition("    defaults: [text_to_sql")[2].partition("\n\nThen")[0].splitlines()
    definition = "defaults: [text_to_sql" + "\n".join(line.removeprefix("    ") for line in lines)
    Path("my_conf/task").mkdir(parents=True)
    Path("my_conf/task/spider.yaml").write_text(definition + "\n")
    assert run_command(["task", "check", "spider", "--config-dir", "my_conf"]) == 0
    said = capsys.readouterr().out
    assert "2 of 2 gold answers grade themselves right" in said
    assert "CREATE TABLE pet" in said
