import re
from pathlib import Path

import pytest
import yaml

from dsrl import __version__
from dsrl.cli.app import help_text
from dsrl.core.resources import home
from dsrl.main import run_command

CONF = home() / "conf"
GROUPS = {folder.name: folder for folder in CONF.iterdir() if folder.is_dir() and folder.name != "hydra"}


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_help_lists_every_group_with_its_choices(group: str) -> None:
    (line,) = [line for line in help_text().splitlines() if line.split()[:1] == [group]]
    listed = [choice.split()[0] for choice in line.split(maxsplit=1)[1].split(", ")]
    names = [choice for choice in listed if not choice.endswith("/")]
    assert names == sorted(names) == sorted(path.stem for path in GROUPS[group].glob("[!_]*.yaml"))
    folders = [choice for choice in listed if choice.endswith("/")]
    assert folders == sorted(f"{path.name}/" for path in GROUPS[group].iterdir() if path.is_dir())


def test_help_lists_every_dial_with_its_default() -> None:
    values = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))
    for dial in (
        "name",
        "n",
        "m",
        "rollouts",
        "votes",
        "rounds",
        "seed",
        "budget_usd",
        "budget_tokens",
        "stop_after",
        "store",
    ):
        default = "null" if values[dial] is None else str(values[dial])
        assert re.search(rf"^  {dial}: {re.escape(default)}\s+#", help_text(), re.MULTILINE), dial


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_is_given_however_it_is_asked_for(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([word]) == 0
    assert capsys.readouterr().out == help_text() + "\n"


@pytest.mark.parametrize("word", ["--version", "version"])
def test_the_version_is_printed(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([word]) == 0
    assert capsys.readouterr().out == f"dsrl {__version__}\n"


def test_an_unknown_verb_lists_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["trian"]) == 2
    said = capsys.readouterr().err
    for word in ("trian", "run", "evaluate", "ls", "why", "trace", "gc", "task"):
        assert word in said


def test_every_verb_in_the_help_exists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb, words in {"ls": [], "why": ["generate"], "trace": ["0"], "gc": [], "audit": ["write"]}.items():
        assert f" {verb} " in help_text()
        assert run_command([verb, *words, f"store={tmp_path / 'none'}"]) == 2
        assert "no store at" in capsys.readouterr().err
    assert run_command(["compare", "a", "b", f"store={tmp_path / 'none'}"]) == 2
    assert "no such run, evaluation or file" in capsys.readouterr().err
    assert run_command(["task", "ls"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == sorted(path.stem for path in (CONF / "task").glob("*.yaml"))


def test_tasks_of_a_config_dir_are_listed_with_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text("name: mine\ninstruction: Do my bidding.\n")
    assert run_command(["task", "ls", "--config-dir", str(tmp_path)]) == 0
    assert re.search(r"^mine +- +- no test set$", capsys.readouterr().out, re.MULTILINE)


def test_the_folder_of_a_config_may_stand_before_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text("name: mine\ninstruction: Do my bidding.\n")
    assert run_command(["--config-dir", str(tmp_path), "task", "ls"]) == 0
    assert "mine" in capsys.readouterr().out


def test_an_interrupted_command_is_repeated_as_it_was_typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(overrides: list[str], run_pipeline: object, *, plan: bool) -> int:
        assert plan
        assert any("hydra.run.dir" in override for override in overrides)
        raise KeyboardInterrupt

    monkeypatch.setattr("dsrl.cli.app._run_pipeline", interrupted)
    assert run_command(["plan", "pilot=10", "task.instruction=Add up."]) == 130
    assert capsys.readouterr().err.endswith("\n  dsrl plan pilot=10 'task.instruction=Add up.'\n")
