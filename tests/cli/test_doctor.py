from collections.abc import Callable
from pathlib import Path

import pytest

from dsrl.cli.doctor.machine import check_trainer
from dsrl.main import run_command
from tests.llm.server import completion, error, serve

KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "AZURE_OPENAI_RESOURCE")
Doctor = Callable[..., tuple[int, str]]


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Doctor:
    """Runs `dsrl doctor ...`: exit code and all that it says."""
    for key in KEYS:
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("DSRL_STORE", str(tmp_path / "store"))

    def call(*arguments: str) -> tuple[int, str]:
        code = run_command(["doctor", *arguments])
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


def line(text: str, name: str) -> str:
    (found,) = [line for line in text.splitlines() if line.split()[1:2] == [name]]
    return found


def test_it_looks_at_the_machine_and_at_every_teacher(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-verysecretvalue")
    code, text = doctor()
    assert code == 0
    for name in ("Python", "pydantic", "store", "GPUs", "MLflow"):
        assert line(text, name)
    assert "GiB free" in line(text, "store")
    assert "OPENAI_API_KEY is set; never tried live" in line(text, "gpt4o")
    assert "ANTHROPIC_API_KEY is not set" in line(text, "anthropic")
    assert "no key needed" in line(text, "offline")
    assert "verysecret" not in text
    assert "_base" not in text


def test_what_the_chosen_teacher_lacks_is_an_error(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = doctor("teacher=gpt4o")
    assert code == 1
    assert "!!" in line(text, "settings")
    assert "export OPENAI_API_KEY=" in text
    monkeypatch.setenv("OPENAI_API_KEY", "sk-verysecretvalue")
    code, text = doctor("teacher=gpt4o")
    assert (code, "never; live=true" in text, "$2.5 in" in text) == (0, True, True)


def test_a_teacher_of_the_user_s_is_known_with_what_it_begins_with(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "mine.yaml").write_text('defaults: [gpt4o, _self_]\nmodel: x\ntried: "2026-11-19"\n')
    code, text = doctor(f"--config-dir={tmp_path}", "teacher=mine")
    assert "OPENAI_API_KEY is not set; tried live on 2026-11-19" in line(text, "mine")
    assert code == 1


def test_prices_of_a_file_are_shown(doctor: Doctor, tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text("model,input,cached_input,output,date\nmine,3,,7,2026-11-19\n")
    given = ("teacher=server", "teacher.model=mine", "teacher.base_url=http://localhost:1/v1", f"prices={path}")
    code, text = doctor(*given)
    assert (code, "$3 in, $7 out" in text) == (0, True)


def test_live_sends_one_request_and_says_what_came(doctor: Doctor) -> None:
    price = "teacher.price={_target_: dsrl.llm.Price, input: 1.0, output: 2.0, date: 2026-11-19}"
    with serve(answer=lambda body, choice: '{"input": "2 + 2?", "output": "4"}') as script:
        code, text = doctor("teacher=server", "teacher.model=m", f"teacher.base_url={script.url}", price, "live=true")
    assert code == 0, text
    (body,) = script.bodies
    assert (body["n"], "seed" in body, body["response_format"]["type"]) == (2, True, "json_schema")
    for words in ("tested-1 answered", "accepted", "came with json_mode=schema", "$0.000022"):
        assert words in text


WRONG: list[tuple[object, str]] = [
    (error(401, "Incorrect API key"), "final: 401: Incorrect API key"),
    (error(404, "no such model"), "404: no such model"),
    (error(503, "down"), "server: 503: down"),
]


@pytest.mark.parametrize(("step", "words"), WRONG)
def test_live_says_what_is_wrong(step: object, words: str, doctor: Doctor) -> None:
    with serve(step) as script:
        code, text = doctor("teacher=server", "teacher.model=m", f"teacher.base_url={script.url}", "live=true")
    assert (code, words in text) == (1, True)


def test_live_says_what_is_not_taken(doctor: Doctor) -> None:
    with serve(answer=lambda body, choice: "I like apples") as script:
        code, text = doctor("teacher=server", "teacher.model=m", f"teacher.base_url={script.url}", "live=true")
    assert code == 1
    assert "json_mode=schema, but not JSON" in text


def test_fewer_completions_than_asked_for_are_noticed(doctor: Doctor) -> None:
    from tests.llm.server import Says

    one = Says(200, completion(['{"input": "a", "output": "b"}']))
    with serve(one) as script:
        code, text = doctor("teacher=server", "teacher.model=m", f"teacher.base_url={script.url}", "live=true")
    assert (code, "takes_n=false" in text) == (1, True)


MISTAKES = [
    (("teacher=nope",), "teacher/nope"),
    (("live=true",), "dsrl doctor teacher=NAME live=true"),
    (("teacher=gpt4o", "live=maybe"), "true, false"),
    (("gpt4o",), "gpt4o"),
    (("teacher=ollama",), "teacher.model is missing"),
    (("teacher=azure", "teacher.model=m"), "AZURE_OPENAI_RESOURCE"),
    (("+teacher.api_key=sk-verysecretvalue",), "a secret doesn't belong"),
    (("teacher=gpt4o", "teacher.concurency=3"), "concurency"),
]


@pytest.mark.parametrize(("arguments", "words"), MISTAKES)
def test_mistakes_are_told(arguments: tuple[str, ...], words: str, doctor: Doctor) -> None:
    code, text = doctor(*arguments)
    assert (code, words in text, "verysecret" in text, "_base" in text) == (2, True, False, False)


def test_a_store_on_a_full_or_forbidden_disk_is_found_out(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsrl.cli.doctor.machine.LITTLE_SPACE", 2**80)
    code, text = doctor()
    assert (code, line(text, "store").split()[0]) == (1, "!!")


def test_an_mlflow_server_that_does_not_answer_is_found_out(doctor: Doctor) -> None:
    code, text = doctor("tracking.uri=http://127.0.0.1:9")
    assert (code, line(text, "MLflow").split()[0]) == (1, "!!")


def environment(folder: Path, body: str) -> str:
    """An interpreter that says what is told."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


ALL = '"vllm": "1", "ray": "1", "torch": "1", "transformers": "1", "TransferQueue": "1", "dsrl": "1"'
ENVIRONMENTS = [
    (
        f"""echo '{{"python": "3.11.7", "verl": "0.9.1", {ALL}}}'""",
        0,
        ("Python 3.11.7", "ok  verl                 0.9.1"),
    ),
    (f"""echo '{{"python": "3.11.7", "verl": "0.8.0", {ALL}}}'""", 1, ("verl==0.9.1",)),
    (
        f"""echo '{{"python": "3.11.7", "verl": null, {ALL}}}'""",
        1,
        ("!!  verl                 not installed", "make verl"),
    ),
    ("echo 'no such option: -P' >&2; exit 2", 1, ("no such option: -P",)),
]


@pytest.mark.parametrize(("body", "expected", "words"), ENVIRONMENTS)
def test_the_trainer_s_own_environment_is_looked_into(
    body: str, expected: int, words: tuple[str, ...], tmp_path: Path
) -> None:
    found = list(check_trainer(environment(tmp_path, body), needed=True))
    text = "\n".join(map(str, found))
    assert any(finding.mark == "!!" for finding in found) == bool(expected), text
    assert all(word in text for word in words), text


def test_an_environment_that_hangs_or_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = check_trainer("/nowhere/python", needed=False)
    assert (found.mark, "/nowhere/python: no such program" in found.text) == ("-", True)
    monkeypatch.setattr("dsrl.cli.doctor.machine.TRAINER_SECONDS", 0.2)
    (found,) = check_trainer(environment(tmp_path, "exec sleep 60"), needed=True)
    assert (found.mark, "no answer within" in found.text) == ("!!", True)


def test_train_verl_asks_for_its_environment(doctor: Doctor) -> None:
    code, text = doctor("train=verl", "train.python=/nowhere/python")
    assert (code, line(text, "interpreter").split()[0]) == (1, "!!")
