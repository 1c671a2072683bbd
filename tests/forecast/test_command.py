import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dsrl.cli.app import help_text
from dsrl.forecast import Plan
from dsrl.forecast.estimate import Range
from dsrl.forecast.run_forecast import RunForecast
from dsrl.forecast.table import table
from dsrl.forecast.workload import CachedUsage, Workload
from dsrl.llm import Endpoint, Price
from dsrl.main import run_command
from tests.command import Outcome

Call = Callable[..., Outcome]
PAID = ("task=quickstart", "teacher=gpt4o", "model.path=.")


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """`dsrl plan` in this process, in an empty folder."""

    def called(*arguments: str) -> Outcome:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["dsrl", *arguments])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        monkeypatch.setenv("DSRL_CACHE", str(tmp_path / "cache"))
        code = run_command(list(arguments))
        return Outcome(code, *capfd.readouterr())

    return called


def line(outcome: Outcome, start: str) -> list[str]:
    (found,) = [line.split() for line in outcome.out.splitlines() if line.startswith(start)]
    return found


def test_a_plan_writes_nothing(call: Call, tmp_path: Path) -> None:
    """No key, no base model and no network are needed."""
    outcome = call("plan", *PAID)
    assert outcome.code == 0, outcome.err
    assert list(tmp_path.iterdir()) == []
    for stage in ("retrieve", "generate", "probe", "rewrite", "score", "select", "train", "evaluate_base", "total"):
        assert line(outcome, stage)
    assert "$" in outcome.out
    assert "report" not in outcome.out


def test_the_plan_respects_stop_after(call: Call) -> None:
    outcome = call("plan", *PAID, "stop_after=generate")
    assert "rewrite" not in outcome.out
    assert line(outcome, "total")[1] == f"{1 + int(line(outcome, 'generate')[2].replace(',', '')):,}"


def test_the_plan_as_a_file(call: Call, tmp_path: Path) -> None:
    outcome = call("plan", *PAID, "plan.out=forecast.json", "rounds=2", "budget_usd=0.5")
    assert outcome.code == 0, outcome.err
    assert "will not be enough" in outcome.out
    found = json.loads((tmp_path / "forecast.json").read_text())
    usd = found["stages"]["generate"]["usd"]
    assert 0 < usd["low"] < usd["expected"] < usd["high"]
    assert found["usd"]["expected"] == pytest.approx(sum(row["usd"]["expected"] for row in found["stages"].values()))
    assert found["stages"]["score"]["gpu_hours"]["expected"] > 0


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ("budget_tokens=1000", "budget_tokens=1000 will not be enough: "),
        ("budget_tokens=1000000000", ""),
        ("budget_usd=0.01", "budget_usd=0.01 will not be enough: $"),
    ],
)
def test_a_budget_is_compared_with_the_forecast(budget: str, words: str, call: Call) -> None:
    said = call("plan", *PAID, "stop_after=generate", budget).out
    assert words in said
    assert ("be enough" in said) is bool(words)


def test_batch_prices_agree_in_all_outputs(call: Call, tmp_path: Path) -> None:
    outcome = call("plan", *PAID, "stop_after=generate", "teacher.batch=true", "plan.out=forecast.json")
    cells = line(outcome, "generate")
    assert cells[5] == cells[9]
    found = json.loads((tmp_path / "forecast.json").read_text())["stages"]["generate"]
    listed = found["input_tokens"]["expected"] * 2.5e-6 + found["output_tokens"]["expected"] * 10e-6
    assert found["usd"]["expected"] == pytest.approx(listed / 2)


def test_prices_without_a_model_of_the_run_cause_a_warning(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text("model,input,cached_input,output,date\nother,1,,2,2026-11-20\n")
    said = call("plan", *PAID, f"prices={path}").out
    assert re.search(r"WARNING prices=\S+ has no price for gpt-4o\S*, only for other\n", said)


def test_an_evaluation_can_be_planned(call: Call) -> None:
    outcome = call("plan", "pipeline=evaluate", *PAID)
    assert outcome.code == 0, outcome.err
    assert line(outcome, "evaluate_base")


def test_an_unknown_price_is_unknown(call: Call) -> None:
    server = ("teacher=server", "teacher.model=m", "teacher.base_url=http://127.0.0.1:1/v1")
    outcome = call("plan", "task=quickstart", *server, "model.path=.")
    assert outcome.code == 0, outcome.err
    assert "unknown" in line(outcome, "generate")
    assert "$" not in outcome.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("plan",), ["task is missing"]),
        (("plan", *PAID, "plan.gpu=G5"), ["plan.gpu", "G5", "H100"]),
        (("plan", *PAID, "plan.utilization=[0.9,0.1,0.2]"), ["plan.utilization", "ascending"]),
        (("plan", *PAID, "plan.out=nowhere/f.json"), ["plan.out", "nowhere"]),
        (("plan", *PAID, "teacher.context=4050"), ["max_tokens=4000 leaves 50 of 4050 tokens for the prompt", "lower"]),
        (("plan", *PAID, "prices=none.csv"), ["prices", "none.csv", "give prices=FILE.csv"]),
        (("plan", *PAID, "pilot=-1"), ["pilot", "-1"]),
        (("plan", *PAID, "pilot=2"), ["OPENAI_API_KEY"]),
        (("experiment=quickstart", "pilot=2"), ["pilot", "dsrl plan"]),
    ],
)
def test_mistakes(call: Call, arguments: tuple[str, ...], words: list[str]) -> None:
    outcome = call(*arguments)
    assert outcome.code == 2, outcome.out
    for word in words:
        assert word in outcome.err


def test_the_help_names_it() -> None:
    assert "dsrl plan [pilot=10]" in help_text()


def test_a_table_adds_up_and_names_its_sources() -> None:
    teacher = Endpoint(
        model="m", base_url="http://a/v1", takes_batch=True, price=Price(input=1, output=2, date="", batch=0.5)
    )
    workload = Workload(
        endpoint=teacher,
        requests=Range(10, 20, 30),
        input_tokens=Range(1e6, 2e6, 3e6),
        output_tokens=Range(0, 1e6, 2e6),
        cached=CachedUsage(completions=7, input_tokens=70, output_tokens=700),
        seconds=Range(60, 7200, 9000),
        basis="8 candidates in the store",
    )
    forecast = RunForecast()
    forecast.add("write", "begun", workload)
    forecast.add("draw", "new", Workload(role="model", flops=Range(0, 989e12 * 3600 * 0.15, 989e12 * 3600)))
    forecast.add("mine", "unknown", None)
    shown = table(forecast, Plan())
    for text in ("$4.00", "$1.00 - $7.00", "$2.00", "2.0 h", "1 (<0.01 - 20)", "7 replies", "8 candidates", "for mine"):
        assert text in shown, shown


def test_high_utilization_takes_few_gpu_hours() -> None:
    hours = Plan(gpu="A100", utilization=(0.1, 0.2, 0.4)).gpu_hours(Range(1e18, 1e18, 1e18))
    assert hours.low < hours.expected < hours.high
    assert hours.expected == pytest.approx(1e18 / (312e12 * 0.2) / 3600)
