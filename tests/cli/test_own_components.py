"""What users bring along: a task of their own, an answer kind, a stage, a test set, on the real command line."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dsrl.core.parquet import read_table
from dsrl.data.sample import Sample
from dsrl.main import run_command
from tests.llm.server import Json, Script, serve

Run = Callable[..., Path]


def teacher(body: Json, choice: int) -> str:
    """Writes a new story whenever it is asked for one, and answers every story with the number in it."""
    prompt = body["messages"][-1]["content"]
    if "Write one new sample" in prompt:
        number = prompt.partition("sample number ")[2].partition(" ")[0]
        return json.dumps({"input": f"Say {number}.", "output": f"#### {number}"})
    if "Describe in general terms" in prompt:
        return json.dumps({"pattern": "a number"})
    number = prompt.partition("Say ")[2].partition(".")[0]
    return f"<answer>{number}</answer>\n#### {number}"


@pytest.fixture
def served() -> Iterator[Script]:
    with serve(answer=teacher) as script:
        yield script


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: Script, capfd: pytest.CaptureFixture[str]) -> Run:
    """`dsrl` in an empty folder up to the samples; returns the run folder."""

    def called(*arguments: str) -> Path:
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(tmp_path))
        words = [
            *arguments,
            "teacher=server",
            "teacher.model=m",
            f"teacher.base_url={served.url}",
            "retriever=none",
            "n=3",
            "votes=1",
            "model=hf",
            "model.path=.",
            "tracking.enabled=false",
            "hydra.run.dir=run",
        ]
        monkeypatch.setattr(sys, "argv", ["dsrl", *words])
        code = run_command(words)
        said = capfd.readouterr()
        assert code == 0, said.out + said.err
        return tmp_path / "run"

    return called


def samples(run_dir: Path) -> tuple[Sample, ...]:
    key = json.loads((run_dir / "metrics.json").read_text())["keys"]["generate"]
    return read_table(run_dir.parent / "store" / "stages" / "generate" / key / "samples.parquet", Sample)


def test_a_task_on_the_command_line(run: Run, served: Script) -> None:
    found = samples(run("task=adhoc", "task.instruction='Say numbers, please: (all of them)'", "stop_after=generate"))
    assert [sample.answer for sample in found] == ["1", "2", "3"]
    first = served.bodies[0]["messages"][-1]["content"]
    assert "Say numbers, please: (all of them)" in first
    assert "<answer>" in first


def test_a_task_on_the_command_line_with_demos_kind_and_test_set(run: Run, tmp_path: Path, served: Script) -> None:
    (tmp_path / "test.tsv").write_text("frage\tantwort\nSay 9.\t9\n")
    run_dir = run(
        "task=adhoc",
        "task.name=numbers",
        "task.instruction=Say numbers.",
        "task.answer.kind=number",
        "task.demos=[{input: Say 7., output: '#### 7'}]",
        "task.test.path=test.tsv",
        "task.test.input=frage",
        "task.test.output=antwort",
        "stop_after=generate",
    )
    assert [sample.task for sample in samples(run_dir)] == ["numbers"] * 3
    assert any("Say 7." in body["messages"][-1]["content"] for body in served.bodies)
    assert json.loads((run_dir / "metrics.json").read_text())["task"] == "numbers"


def test_a_task_in_a_file_of_its_own(run: Run, tmp_path: Path) -> None:
    (tmp_path / "my_conf" / "task").mkdir(parents=True)
    (tmp_path / "my_conf" / "task" / "mine.yaml").write_text(
        "name: mine\ninstruction: Say numbers.\nanswer: {kind: number, tolerance: 0.5}\ndemos: my_demos.jsonl\n"
    )
    (tmp_path / "my_demos.jsonl").write_text('{"input": "Say 7.", "output": "#### 7"}\n')
    found = samples(run("--config-dir", "my_conf", "task=mine", "stop_after=generate"))
    assert {sample.task for sample in found} == {"mine"}


def test_subjects_are_asked_for_in_turn(run: Run, served: Script) -> None:
    run("task=adhoc", "task.instruction=Say numbers.", "task.subjects=[odd ones,even ones]", "stop_after=generate")
    prompts = [body["messages"][-1]["content"] for body in served.bodies]
    asked = {
        prompt.partition("sample number ")[2].partition(" ")[0]: prompt.partition("Subject of this sample: ")[2].split(
            "."
        )[0]
        for prompt in prompts
        if "Write one new sample" in prompt
    }
    assert {number: asked[number] for number in ("1", "2", "3")} == {"1": "odd ones", "2": "even ones", "3": "odd ones"}
    assert not any("Subject of" in prompt for prompt in prompts if "Write one new sample" not in prompt)


@pytest.mark.parametrize(("form", "answer"), [("DatasetDict", "9"), ("Dataset", "The answer is 9.")])
def test_a_test_set_saved_by_datasets_with_the_authors_columns(
    run: Run, form: str, answer: str, tmp_path: Path
) -> None:
    import datasets

    data = datasets.Dataset.from_dict({"Input": ["Say 9."], "Output": [answer]})
    saved = datasets.DatasetDict({"test": data, "train": data}) if form == "DatasetDict" else data
    saved.save_to_disk(tmp_path / "saved")
    run(
        "task=adhoc",
        "task.instruction=Say numbers.",
        "task.answer.kind=number",
        "task.test.path=saved",
        "stop_after=generate",
    )


DROPPED = [
    f"~pipeline.{name}"
    for name in (
        "probe",
        "rewrite",
        "score",
        "select",
        "train",
        "evaluate_base",
        "evaluate_trained",
        "compare",
        "report",
    )
]
MODULE = """
from typing import ClassVar

from dsrl.graders import Grader
from dsrl.core.component import component
from dsrl.pipeline.stage import Stage


@component("mine.word")
class Word(Grader):
    ending: str = "!"

    @property
    def instruction(self):
        return f"End with {self.ending}"

    def parse(self, reply):
        return reply.rpartition("#### ")[2] or None

    def parse_anywhere(self, reply):
        return reply or None


@component("mine.audit")
class Audit(Stage):
    name: ClassVar[str] = "audit"
    inputs = ("samples",)
    outputs = ()

    limit: int = 2

    def __call__(self, state, context):
        count = len(state.samples)
        return state.add(figures={"rows": {"in": count, "out": count}, "over": count - self.limit})
"""


def test_an_answer_kind_of_ones_own(run: Run, tmp_path: Path, served: Script) -> None:
    (tmp_path / "my_kind.py").write_text(MODULE)
    (tmp_path / "my_conf" / "task").mkdir(parents=True)
    text = "name: mine\ninstruction: Say numbers.\nanswer: {_target_: my_kind.Word, ending: '?'}\n"
    (tmp_path / "my_conf" / "task" / "mine.yaml").write_text(text)
    run("--config-dir", "my_conf", "task=mine", "plugins=[my_kind]", "stop_after=generate")
    assert "End with ?" in served.bodies[0]["messages"][-1]["content"]


def test_a_stage_of_ones_own_on_the_command_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "my_stage.py").write_text(MODULE.replace("mine.", "my_stage."))
    run_dir = run(
        "task=adhoc",
        "task.instruction=Say numbers.",
        "+audit._target_=my_stage.Audit",
        "+pipeline.audit=${audit}",
        "plugins=[my_stage]",
        *DROPPED,
    )
    written = json.loads((run_dir / "metrics.json").read_text())
    assert written["stages"]["audit"]["over"] == 1
    assert written["rows"]["audit"] == {"in": 3, "out": 3, "rejected": {}}


def test_a_pipeline_of_ones_own_in_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "my_pipeline.py").write_text(MODULE.replace("mine.", "my_pipeline."))
    (tmp_path / "my_conf" / "pipeline").mkdir(parents=True)
    (tmp_path / "my_conf" / "pipeline" / "mine.yaml").write_text(
        """# @package _global_
defaults:
  - synthetic_data_rl
  - _self_
pipeline:
  audit: ${audit}
audit:
  _target_: my_pipeline.Audit
  limit: 1
"""
    )
    run_dir = run(
        "--config-dir",
        "my_conf",
        "task=adhoc",
        "task.instruction=Say numbers.",
        "pipeline=mine",
        "plugins=[my_pipeline]",
        *DROPPED,
    )
    assert json.loads((run_dir / "metrics.json").read_text())["stages"]["audit"]["over"] == 2
