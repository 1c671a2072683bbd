"""A task of one's own, from nothing."""

from pathlib import Path

import pytest

from dsrl.main import run_command
from tests.composed import built


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_new_task_checks_and_builds_as_it_stands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["task", "new", "mine"]) == 0
    said = capsys.readouterr().out
    assert "dsrl task check mine --config-dir my_conf" in said
    assert run_command(["task", "check", "mine", "--config-dir", "my_conf"]) == 0
    assert "mine: all is well" in capsys.readouterr().out
    pipeline, state = built("experiment=quickstart", "task=mine", config_dir=tmp_path / "my_conf")
    assert pipeline
    assert state.task.name == "mine"
    assert len(state.task.demos) == 2


def test_every_key_of_a_task_is_explained_in_a_new_one() -> None:
    import dataclasses

    import yaml

    from dsrl.data.source import Source
    from dsrl.data.task import Contamination, Task

    run_command(["task", "new", "mine", "--config-dir", "elsewhere"])
    text = Path("elsewhere/task/mine.yaml").read_text()
    written = yaml.safe_load(text)
    assert set(written) == {field.name for field in dataclasses.fields(Task)}
    assert set(written["test"]) == {field.name for field in dataclasses.fields(Source)}
    assert set(written["contamination"]) == {field.name for field in dataclasses.fields(Contamination)}
    assert "NAME" not in text
    assert "FOLDER" not in text


@pytest.mark.parametrize("name", ["gsm8k", "2fast", "a/b", "../x", "with space"])
def test_a_name_that_is_taken_or_none_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["task", "new", name]) == 2
    assert not list(Path().iterdir())
    assert name in capsys.readouterr().err


def test_nothing_is_written_over() -> None:
    assert run_command(["task", "new", "mine"]) == 0
    path = Path("my_conf/task/mine.yaml")
    path.write_text(path.read_text() + "# mine\n")
    assert run_command(["task", "new", "mine"]) == 2
    path.rename("kept.yaml")
    assert run_command(["task", "new", "mine"]) == 2
    assert not path.exists()
