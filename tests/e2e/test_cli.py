"""Killed, interrupted and swept runs: nothing is paid twice, and the results are the same."""

import json
import shlex
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.runs import SMALL, Place, metrics, requests

pytestmark = pytest.mark.e2e
SLOW = "teacher.server.latency=0.05"
"""Leaves time to interrupt without changing results."""


def whole(place: Place) -> dict[str, bytes]:
    """Tables in the store, by stage and file; equal for equal runs."""
    found = {}
    for folder in sorted(place.store.glob("stages/*/[0-9a-f]*")):
        for path in sorted(folder.glob("*.parquet")):
            found[f"{folder.parent.name}/{folder.name}/{path.name}"] = path.read_bytes()
    return found


def killed(place: Place, *arguments: str, when: Any) -> None:
    outcome = place.interrupted(*SMALL, *arguments, when=when, sign=signal.SIGKILL)
    assert outcome.code == -signal.SIGKILL


def test_a_run_killed_in_three_stages_ends_in_the_same_bytes(finished: Place, cache: Path, tmp_path: Path) -> None:
    place = Place(tmp_path, cache)
    killed(place, SLOW, when=lambda: place.making("generate") and place.paid() > 60)
    assert not list(place.store.glob("stages/generate/*/manifest.json"))
    before = place.paid()

    at_score: list[int] = []

    def scoring() -> bool:
        if place.making("score"):
            at_score.append(place.paid())
        return bool(at_score) and at_score[-1] >= at_score[0] + 32

    killed(place, when=scoring)
    assert place.paid() > before
    assert not list(place.store.glob("stages/score/*/manifest.json"))

    killed(place, when=lambda: any(place.store.glob("work/train/*/*/*/whole.json")))
    assert not list(place.store.glob("stages/train/*/manifest.json"))

    end = place.run(*SMALL)
    assert requests(end) == 0
    assert end["reused"]["score"] is True
    assert end["reused"]["train"] is False
    expected = {name: value for name, value in whole(finished).items() if name in whole(place)}
    assert whole(place) == expected
    assert any(name.startswith("score/") for name in expected)
    log = (place.entry("train", end) / "progress.jsonl").read_text().splitlines()
    assert [step for row in map(json.loads, log) if "reward" in row for step in [row["step"]]] == [1, 2, 3, 4]
    weights = "model/model.safetensors"
    assert (place.entry("train", end) / weights).read_bytes() == (finished.entry("train", end) / weights).read_bytes()


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_is_left_behind(finished: Place, cache: Path, tmp_path: Path, sign: signal.Signals) -> None:
    place = Place(tmp_path, cache)
    words = (*SMALL, f"store={finished.store}", "rl.max_steps=400", f"rl.learning_rate=0.000{sign.value}")

    def training() -> bool:
        return any(finished.store.glob("stages/train/.making-*")) and len(place.processes()) >= 2

    outcome = place.interrupted(*words, when=training, sign=sign)
    assert outcome.code == (-sign if sign == signal.SIGKILL else 128 + sign)
    while place.processes():
        time.sleep(0.05)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_print_the_command_to_resume(cache: Path, tmp_path: Path, sign: signal.Signals) -> None:
    place = Place(tmp_path, cache)
    when = lambda: place.making("generate") and place.paid() > 30  # noqa: E731
    outcome = place.interrupted(*SMALL, SLOW, "hydra.run.dir=run", when=when, sign=sign)
    assert outcome.code == 128 + sign
    assert "Traceback" not in outcome.err
    words = shlex.join(["dsrl", *SMALL, SLOW, "hydra.run.dir=run"])
    assert outcome.err.count(f"\n  {words}\n") == 1
    assert "spent" in outcome.err
    assert metrics(place.folder / "run")["status"] == "interrupted"
    spent = place.paid()
    assert spent > 30
    end = place.run(*SMALL, "stop_after=generate")
    assert end["calls"]["teacher"]["store_hits"] > 0


def test_a_sweep_pays_the_teacher_once_and_resumes_after_a_kill(finished: Place, cache: Path, tmp_path: Path) -> None:
    place = Place(tmp_path, cache)
    sweep = ("-m", *SMALL, f"store={finished.store}", "rl.max_steps=2", "m=4,5", "stop_after=train")
    before = len(list(finished.store.glob("stages/train/*/manifest.json")))

    def second_training() -> bool:
        trained = len(list(finished.store.glob("stages/train/*/manifest.json")))
        return trained == before + 1 and bool(list(finished.store.glob("stages/train/.making-*")))

    outcome = place.interrupted(*sweep, "hydra.sweep.dir=killed", when=second_training, sign=signal.SIGKILL)
    assert outcome.code == -signal.SIGKILL
    outcome = place.dsrl(*sweep, "hydra.sweep.dir=again")
    assert outcome.code == 0, outcome.err
    one, two = (metrics(place.folder / "again" / str(number)) for number in range(2))
    assert one["reused"]["train"] is True
    assert two["reused"]["train"] is False
    assert requests(one) == requests(two) == 0
    assert [each["select"]["selected"] for each in (one, two)] == [4, 5]


def test_two_simultaneous_runs_compute_each_stage_once(cache: Path, tmp_path: Path) -> None:
    place = Place(tmp_path, cache)
    words = (*SMALL, SLOW, "stop_after=generate")
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(place.dsrl, *words, f"hydra.run.dir=run{number}") for number in range(2)]
    assert [run.result().code for run in runs] == [0, 0]
    one, two = (metrics(tmp_path / f"run{number}") for number in range(2))
    assert one["keys"] == two["keys"]
    for stage in one["keys"]:
        assert sorted([one["reused"][stage], two["reused"][stage]]) == [False, True]


def test_a_shortfall_of_samples_is_a_warning(finished: Place) -> None:
    found = finished.run(*SMALL, "m=500", "select.fill=none", "stop_after=select")
    (warning,) = found["warnings"]
    assert "500" in warning
    assert f"n={found['stages']['select']['suggested_n']}" in warning
    assert found["select"]["shortfall"] > 0
    refused = finished.dsrl(*SMALL, "m=500", "select.fill=error", "stop_after=select")
    assert refused.code == 3
    assert "Traceback" not in refused.err
    assert "500" in refused.err


def test_a_run_can_export_data_set_and_model(finished: Place, tmp_path: Path) -> None:
    finished.run(*SMALL, f"export_dir={tmp_path / 'mine'}")
    names = {str(path.relative_to(tmp_path / "mine")) for path in (tmp_path / "mine").rglob("*") if path.is_file()}
    parts = {f"data/{name}-00000-of-00001.parquet" for name in ("train", "accepted")}
    assert {*parts, "README.md", "export.json", "model/config.json"} <= names
    finished.run(*SMALL, f"export_dir={tmp_path / 'mine'}")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("not ours")
    refused = finished.dsrl(*SMALL, f"export_dir={tmp_path / 'other'}")
    assert refused.code == 2
    assert str(tmp_path / "other") in refused.err


def test_a_budget_stops_a_run_in_time_and_the_total_cost_over_runs_is_known(cache: Path, tmp_path: Path) -> None:
    place, whole = Place(tmp_path / "parts", cache), Place(tmp_path / "whole", cache)
    for made in (place, whole):
        made.folder.mkdir()
    priced = (*SMALL, "teacher.price.input=1000.0", "teacher.price.output=1000.0", "stop_after=generate")
    outcome = place.dsrl(*priced, "budget_usd=10", "hydra.run.dir=first")
    assert outcome.code == 4
    assert "Traceback" not in outcome.err
    assert "budget_usd" in outcome.err
    first = metrics(place.folder / "first")
    assert first["status"] == "budget"
    assert 0 < first["calls"]["teacher"]["usd"] <= 10
    assert first["calls_by_stage"]["generate"]["teacher"]["completions"] > 0
    rest, once = place.run(*priced), whole.run(*priced)
    assert rest["calls"]["teacher"]["store_hits"] > 0
    costs = [found["cost"]["generate"]["teacher"] | {"requests": None} for found in (rest, once)]
    assert costs[0] == costs[1], "a reply counts once, whoever paid for it"
    assert rest["per_sample"]["usd"] == once["per_sample"]["usd"]
