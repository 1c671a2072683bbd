"""What a user's mistakes get: the exit code is not 0, the message says what, got, allowed and next, nothing is lost."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dsrl.main import run_command
from tests.command import Outcome, dsrl

Call = Callable[..., Outcome]
USUAL = ("task=quickstart", "teacher=offline", "model=hf", "model.path=.", "tracking.enabled=false")


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """`dsrl` in this process, in an empty folder: for what dies before any work."""

    def called(*arguments: str) -> Outcome:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["dsrl", *arguments])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        code = run_command(list(arguments))
        return Outcome(code, *capfd.readouterr())

    return called


def refused(outcome: Outcome, *words: str) -> None:
    """The error is one for users, and holds these words."""
    said = outcome.out + outcome.err
    assert outcome.code not in (0, 1), said
    assert "Traceback" not in said
    assert "dsrl: " in said
    for word in words:
        assert word in said, f"{word!r} is not in:\n{said}"


def folder(tmp_path: Path, **files: str) -> str:
    """A `--config-dir` of the user's own."""
    for name, text in files.items():
        path = tmp_path / "my_conf" / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(tmp_path / "my_conf")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["task is missing", "adhoc, cfa", "quickstart", "task=NAME"]),
        (("task=nope", "teacher=offline"), ["nope", "adhoc", "gsm8k", "quickstart"]),
        (("task=quickstart",), ["teacher is missing", "gpt4o", "offline", "server", "teacher=NAME"]),
        (("task=quickstart", "teacher=nope"), ["nope", "gpt4o", "offline"]),
        ((*USUAL, "m=abc"), ["m: ", "'abc'"]),
        ((*USUAL, "hydra/launcher=slurm"), ["hydra/launcher=slurm", "one run", "dsrl -m", "dsrl submit"]),
        ((*USUAL, "cluster=slurm"), ["train=trl does not use Ray", "cluster=slurm"]),
        ((*USUAL, "m=-1"), ["m: ", "-1", "greater than or equal to 1"]),
        ((*USUAL, "m="), ["m: ", "''"]),
        ((*USUAL, "votes=0"), ["votes: ", "got:     0", "greater than or equal to 1"]),
        ((*USUAL, "generate.verify.0.min_margin=2"), ["generate.verify.0.min_margin", "less than or equal to 1"]),
        ((*USUAL, "generate.verify.0.stop=soon"), ["generate.verify.0.stop", "soon", "'lead'"]),
        ((*USUAL, "generate.max_repeats=0"), ["generate.max_repeats", "greater than or equal to 1"]),
        ((*USUAL, "rolouts=3"), ["rolouts", "did you mean `rollouts`"]),
        ((*USUAL, "rewrite.directon=harder"), ["rewrite.directon", "--help"]),
        ((*USUAL, "rewrite.directon=harder"), ["directon", "--help"]),
        ((*USUAL, "select=best"), ["best", "paper", "hardest"]),
        ((*USUAL, "rewrite.direction=sideways"), ["rewrite.direction", "sideways", "harder"]),
        ((*USUAL, "~pipeline.probe"), ["`rewrite` needs `probe`"]),
        ((*USUAL, "~pipeline.nope"), ["nope"]),
        ((*USUAL, "generate._target_=subprocess.run"), ["generate._target_", "subprocess.run", "plugins"]),
        ((*USUAL, "stop_after=nope"), ["stop_after", "nope", "retrieve", "report"]),
        ((*USUAL, "train=sft", "rl=grpo"), ["rl", "train=trl"]),
        ((*USUAL, "+tracking.nonsense=1"), ["nonsense"]),
        ((*USUAL, "n = 5"), ["n = 5"]),
        ((*USUAL, "n=[1,2"), ["n=[1,2"]),
        ((*USUAL, "experiment=nope"), ["nope", "quickstart"]),
        ((*USUAL[:2], "model=hf"), ["model.path"]),
        ((*USUAL[:3], "model.path=/no/such/folder"), ["model.path", "/no/such/folder"]),
        (("task=adhoc", *USUAL[1:]), ["task.instruction"]),
        ((*USUAL, "task.test.path=nowhere.jsonl"), ["nowhere.jsonl", "no such data file"]),
        ((*USUAL, "task.test.output=Answer"), ["no column Answer", "answer", "question", "task.test.output="]),
        ((*USUAL, "--config-name=other"), ["other"]),
        (("why",), ["no store"]),
        (("ls", "days=3x"), ["store"]),
        (("gc", "colour=red"), ["colour", "days"]),
        (("frobnicate",), ["frobnicate", "evaluate"]),
    ],
    ids=lambda value: " ".join(value)[-60:] if isinstance(value, tuple) else "",
)
def test_a_mistake_is_named_with_what_is_allowed(call: Call, arguments: tuple[str, ...], words: list[str]) -> None:
    refused(call(*arguments), *words)


def test_an_unknown_option_is_named(call: Call, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        call(*USUAL, "--nonsense")
    assert "unrecognized arguments: --nonsense" in capfd.readouterr().err


def test_the_key_of_a_teacher_is_asked_for_by_its_variable(call: Call) -> None:
    outcome = call("task=quickstart", "teacher=gpt4o", "model=hf", "model.path=.")
    refused(outcome, "OPENAI_API_KEY is not set", "export OPENAI_API_KEY=")


@pytest.mark.parametrize("override", ["+teacher.api_key=sk-nevershown123", "++teacher.extra.token=nevershown"])
def test_a_key_on_the_command_line_is_refused_and_left_nowhere(call: Call, override: str, tmp_path: Path) -> None:
    outcome = call("task=quickstart", "teacher=gpt4o", override)
    refused(outcome, "environment variable")
    assert "nevershown" not in outcome.out + outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_leaves_no_store_behind(call: Call, tmp_path: Path) -> None:
    refused(call(*USUAL, "m=0"), "m: ")
    assert not (tmp_path / "store").exists()
    assert not list(tmp_path.rglob("metrics.json"))


@pytest.mark.parametrize(
    ("text", "word"), [("rolouts: 3", "rolouts"), ("scoring: {low: 0.1}", "scoring"), ("selekt: {m: 3}", "selekt")]
)
def test_a_mistyped_key_in_a_yaml_file_is_named_with_its_file(call: Call, text: str, word: str, tmp_path: Path) -> None:
    mine = folder(tmp_path, experiment__mine=f"# @package _global_\n{text}\n")
    outcome = call("--config-dir", mine, *USUAL, "experiment=mine")
    refused(outcome, word, "mine.yaml", "unknown key")


@pytest.mark.parametrize("text", ["select: {fil: none}", "rewrite: {directions: both}", "teacher: {modell: x}"])
def test_a_mistyped_key_below_the_top_is_named_with_its_place(call: Call, text: str, tmp_path: Path) -> None:
    mine = folder(tmp_path, experiment__mine=f"# @package _global_\n{text}\n")
    outcome = call("--config-dir", mine, *USUAL, "experiment=mine")
    refused(outcome, text.partition("{")[2].partition(":")[0], "unknown key", "did you mean")


def test_a_yaml_file_that_is_none_is_named(call: Call, tmp_path: Path) -> None:
    mine = folder(tmp_path, task__mine="name: [mine\n")
    refused(call("--config-dir", mine, "task=mine", *USUAL[1:]), "mine.yaml")


def test_a_config_dir_that_is_not_there_is_named(call: Call) -> None:
    refused(call("--config-dir", "nowhere", *USUAL), "nowhere")


def test_tasks_of_a_config_dir_are_among_the_choices(call: Call, tmp_path: Path) -> None:
    mine = folder(tmp_path, task__mine="name: mine\ninstruction: Add.\nanswer: {kind: number}")
    refused(call("--config-dir", mine, "teacher=offline"), "task is missing", "mine", "gsm8k")


@pytest.mark.parametrize(
    ("demos", "words"),
    [
        ('{"input": "1 + 1?"}\n', ["demo 1", "output"]),
        ('{"input": "1 + 1?", "output": "2"}\n{"input": "x", "output": 3}\n', ["demo 2", "output"]),
        ('{"input": "1 + 1?", "output": "2"}\nnot JSON\n', ["demos.jsonl", "line 2"]),
        ("[1]\n", ["demos.jsonl", "line 1"]),
    ],
)
def test_broken_demos_are_named_by_file_or_number(call: Call, demos: str, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "demos.jsonl").write_text(demos)
    refused(call(*USUAL, "task.demos=demos.jsonl"), *words, "next:" if "demo " in words[0] else "got:")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("", ["empty"]),
        ('{"q": "1?", "a": "2"}\n', ["no column", "columns a, q"]),
        ('{"question": "1?", "answer": "two"}\n', ["1 of 1 gold answers can't be read", "rows [1]", "two"]),
        ("{\n", ["test.jsonl, line 1 is not JSON"]),
    ],
)
def test_a_broken_test_set_is_refused_before_any_work(call: Call, rows: str, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text(rows)
    refused(call(*USUAL, "task.test.path=test.jsonl"), *words)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("place", ["file/below", "/proc/nowhere"])
@pytest.mark.parametrize("key", ["hydra.run.dir", "store"])
def test_a_folder_that_cannot_be_written_is_named(call: Call, key: str, place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused(call(*USUAL, f"{key}={place}"), place, key)


def test_a_teacher_that_does_not_answer_is_named_with_its_address(call: Call) -> None:
    teacher = ("teacher=server", "teacher.model=m", "teacher.base_url=http://127.0.0.1:9/v1", "teacher.backoff=0.0")
    outcome = call(USUAL[0], *teacher, *USUAL[2:], "stop_after=retrieve")
    refused(outcome, "http://127.0.0.1:9/v1")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:8000/v1", ["base_url is not a URL", "localhost:8000/v1", "http://"]),
        ("http://localhost:8000/v1/chat/completions", ["names a single method", "next:"]),
    ],
)
def test_a_malformed_address_is_refused_before_any_work(call: Call, url: str, words: list[str]) -> None:
    refused(call(USUAL[0], "teacher=server", "teacher.model=m", f"teacher.base_url={url}", *USUAL[2:]), *words)


def test_a_sweep_with_a_bad_value_fails(call: Call) -> None:
    refused(call("-m", *USUAL, "m=0,-1"), "m: ")


def test_a_process_of_its_own_ends_the_same_way(tmp_path: Path) -> None:
    """Exit code, standard error and no traceback, as a shell sees them."""
    outcome = dsrl("task=quickstart", "teacher=offline", "m=abc", cwd=tmp_path)
    refused(outcome, "m: ")
    assert outcome.out == ""
    assert outcome.code == 2


def test_warnings_of_python_do_not_reach_the_user(tmp_path: Path) -> None:
    outcome = dsrl("--cfg", "job", *USUAL, cwd=tmp_path)
    assert outcome.code == 0
    assert outcome.err == ""
    assert "name: quickstart" in outcome.out
