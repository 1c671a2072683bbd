"""`benchmarks/teacher.py`: its calculations, and a small run of all parts."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.command import CHECKOUT, ENVIRONMENT
from tests.support.faultserver import Outage


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(CHECKOUT / "benchmarks")
    return importlib.import_module("teacher")


def entry(time: float, **fields: Any) -> dict[str, Any]:
    usual = {"time": time, "seconds": 0.0, "key": "k", "seed": 0, "served": 1, "status": 200, "fault": None}
    return {**usual, **fields}


def test_recovery_is_counted_from_the_end_of_the_outage(teacher: ModuleType) -> None:
    before = [entry(100 + i / 10) for i in range(20)]
    after = [entry(105.5), *(entry(107 + i / 10) for i in range(20))]
    first, full = teacher.recovery(before + after, 100.0, Outage(start=2.0, end=5.0))
    assert first == pytest.approx(0.5)
    assert full == pytest.approx(2.8)


def test_repeated_completions_are_counted_per_request(teacher: ModuleType) -> None:
    before = [entry(0.0, seed=1, served=3), entry(0.0, seed=9), entry(0.0, seed=20, served=0, status=500)]
    again = [entry(1.0, seed=2), entry(1.0, seed=3), entry(1.0, seed=20)]
    twice = teacher.paid(before) & teacher.paid(again)
    assert teacher.requests_again(twice, before) == 1


def test_stop_rules_are_compared_on_common_candidates(teacher: ModuleType) -> None:
    def output(labels: dict[str, str | None], tokens: int) -> dict[str, Any]:
        return {"labels": labels, "spent": {"completions": 1, "output_tokens": tokens, "usd": tokens / 1000}}

    full = output({"0": "5", "1": None, "2": "7", "3": "1"}, 100)
    row = teacher.votes_row("lead", output({"0": "5", "1": None, "2": "8"}, 40), full)
    assert row[-2:] == ["3", "66.67 %"]
    assert row[3] == row[5] == "40.0 %"


def test_the_ranking_names_tools_that_are_ahead_of_dsrl(teacher: ModuleType) -> None:
    rows = [["dsrl", "700", "40", "0"], ["gather", "900", "1", "0"], ["curator", "1,350", "40", "0"]]
    table = ("speed", ["client", "requests/s", "429s", "rows lost"], [*rows, ["distilabel", "9,000", "0", "3"]])
    assert "dsrl is NOT first" in teacher.ranking(table, "requests/s")
    assert "(curator 1350, dsrl 700)" in teacher.ranking(table, "requests/s")
    assert "dsrl is first" in teacher.ranking(table, "429s")


@pytest.mark.e2e
def test_all_parts_run(tmp_path: Path) -> None:
    """Tiny amounts of work and no other tools, which are skipped with a note."""
    out = tmp_path / "out.json"
    command = [sys.executable, "benchmarks/teacher.py", "--tiny", "--peers", "curator", "--out", str(out)]
    done = subprocess.run(command, cwd=CHECKOUT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert [outcome["error"] for outcome in result["outcomes"]] == [None] * 14
    assert sum("skipped" in note for note in result["notes"]) == 3
    for title, head, rows in result["tables"]:
        assert rows, title
        assert all(len(row) == len(head) for row in rows)
        assert f"### {title}" in done.stdout
