"""`dsrl evaluate` of a model behind a URL, and two such evaluations compared: no teacher, no GPU, no hub."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dsrl.main import run_command
from tests.llm.server import Json, Script, serve

Evaluate = Callable[..., dict[str, Any]]


def answers(body: Json, choice: int) -> str:
    """The model `good` is always right, any other only about the first twenty questions."""
    number = int(body["messages"][-1]["content"].partition("Say ")[2].partition(".")[0])
    right = body["model"] == "good" or number < 20
    return f"#### {number if right else number + 1}"


@pytest.fixture
def served() -> Iterator[Script]:
    with serve(answer=answers) as script:
        yield script


@pytest.fixture
def evaluate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: Script, capfd: pytest.CaptureFixture[str]
) -> Evaluate:
    """Measures the model of this name; its `metrics.json`, with what was said under `said`."""
    monkeypatch.chdir(tmp_path)
    rows = [{"question": f"Say {number}.", "answer": str(number), "half": number // 20} for number in range(40)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def called(name: str, *more: str) -> dict[str, Any]:
        words = [
            "evaluate",
            "task=adhoc",
            "task.instruction=Say numbers.",
            "task.answer.kind=number",
            "task.test.path=test.jsonl",
            "task.test.input=question",
            "task.test.output=answer",
            "task.test.subject=half",
            "model=server",
            f"model.name={name}",
            "rollout=server",
            f"rollout.endpoint.base_url={served.url}",
            "evaluate_base.samples_per_item=2",
            "tracking.enabled=false",
            f"hydra.run.dir={name}",
            *more,
        ]
        monkeypatch.setattr(sys, "argv", ["dsrl", *words])
        code = run_command(words)
        said = capfd.readouterr()
        assert code == 0, said.err
        found: dict[str, Any] = json.loads((tmp_path / name / "metrics.json").read_text())
        return {**found, "said": said.err}

    return called


def test_a_model_behind_a_url_is_measured_without_a_teacher(evaluate: Evaluate, tmp_path: Path) -> None:
    found = evaluate("poor")
    base = found["evaluate"]["base"]
    assert found["teacher"] is None
    assert (base["n"], base["pass_at_1"], base["greedy"], base["format_ok"], base["truncated"]) == (40, 0.5, 0.5, 1, 0)
    assert base["intervals"]["greedy"] == pytest.approx([0.352, 0.648], abs=0.001)  # Wilson's
    assert 0.3 < base["low"] < 0.4 < 0.6 < base["high"] < 0.7
    assert base["intervals"]["format_ok"][0] < 1
    assert {name: part["pass_at_1"]["value"] for name, part in base["subjects"].items()} == {"0": 1.0, "1": 0.0}
    assert Path(base["predictions"]).is_file()
    for words in (
        "base         pass@1 50.0 % (",
        "greedy 50.0 % (35.2 to 64.8)",
        "  1: 20 items  pass@1 0.0 % (",
        "predictions",
    ):
        assert words in found["said"]
    page = (tmp_path / "poor" / "report.html").read_text()
    assert "pass@1 by subject" in page
    assert base["predictions"] in page


def test_two_evaluations_are_compared(evaluate: Evaluate, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    evaluate("poor")
    evaluate("good")
    assert run_command(["compare", "poor", "good", "show=1"]) == 0
    said = capfd.readouterr().out
    assert "+50.0 (" in said
    assert "exact McNemar p < 0.001, 20 gained, 0 lost" in said
    assert "item 20 [1]: Say 20." in said
    assert len((tmp_path / "flipped.jsonl").read_text().splitlines()) == 20
