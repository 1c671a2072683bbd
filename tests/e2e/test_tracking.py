"""Runs tracked by a real MLflow in its child process, checked in its database with sqlite3."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dsrl.infra.tracking import Tracking
from dsrl.llm.reply_cache.cache import ReplyCache
from dsrl.pipeline.context import Context
from dsrl.pipeline.progress.progress import Progress
from dsrl.pipeline.store import Store
from dsrl.stages.report import Report
from tests.stages.report.made import make_study

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]


def bare(folder: Path, store: Path) -> Context:
    """Context of a run that has just started."""
    folder.mkdir(parents=True)
    return Context(run_dir=folder, store=Store(store), reply_cache=ReplyCache(store / "calls"), progress=Progress())


def rows(store: Path, query: str, *values: Any) -> list[Any]:
    with sqlite3.connect(store / "mlflow.db") as database:
        found = database.execute(query, values).fetchall()
    database.close()
    return found


def test_a_finished_run_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SOME_KEY", "sk-very-secret")
    state, context = make_study(tmp_path, count=10)
    store = context.store.root
    Report()(state, context)
    values = {
        "name": "counting",
        "n": 10,
        "teacher": {"model": "m", "api_key_env": "SOME_KEY", "note": "sk-very-secret"},
    }
    tracking = Tracking(experiment="mine", sweep=str(tmp_path / "sweep"))
    tracking.start(context, values)
    with context.progress.task("generate", 4) as task:
        task.set(4, rejected={"duplicate": 2})
    tracking.track(context, values, state, "finished")
    context.close()
    assert len(context.progress.warnings) == 1  # the one of `make_study`
    assert not (context.run_dir / "tracking.log").exists()
    (run,) = rows(store, "select run_uuid from runs where name = 'counting run' and status = 'FINISHED'")
    (parent,) = rows(store, "select run_uuid from runs where name = 'sweep' and status = 'FINISHED'")
    tags = dict(rows(store, "select key, value from tags where run_uuid = ?", *run))
    assert tags["mlflow.parentRunId"] == parent[0]
    assert tags["dsrl.key.train"] == "c01d" * 5
    params = dict(rows(store, "select key, value from params where run_uuid = ?", *run))
    assert params == {
        "name": "counting", "n": "10", "teacher.model": "m", "teacher.api_key_env": "SOME_KEY", "teacher.note": "***"
    }  # fmt: skip
    steps = rows(store, "select step from metrics where run_uuid = ? and key = 'train/reward' order by step", *run)
    assert [step for (step,) in steps] == list(range(1, 51))
    live = dict(rows(store, "select key, value from metrics where run_uuid = ? and key like 'live/%'", *run))
    assert (live["live/generate/done"], live["live/generate/rejected"]) == (4.0, 2.0)
    assert rows(store, "select name, dataset_source_type from datasets") == [("counting-selected", "local")]
    artifacts = {path.name for path in (store / "mlartifacts").rglob("*") if path.is_file()}
    assert artifacts == {"report.html", "config.yaml"}
    assert b"sk-very-secret" not in (store / "mlflow.db").read_bytes()


def test_four_simultaneous_jobs_of_a_sweep_on_a_new_store(tmp_path: Path):
    store, tracking = tmp_path / "store", Tracking(sweep=str(tmp_path / "sweep"))
    contexts = [bare(tmp_path / f"run{number}", store) for number in range(4)]
    ends = ("finished", "stopped", "failed", "budget")
    for context in contexts:
        tracking.start(context, {"name": "job"})
    for context, end in zip(contexts, ends, strict=True):
        tracking.track(context, {}, None, end)
        context.close()
    assert [context.progress.warnings for context in contexts] == [[], [], [], []]
    assert rows(store, "select name, status from runs order by name") == [
        ("job run0", "FINISHED"), ("job run1", "FINISHED"), ("job run2", "FAILED"), ("job run3", "KILLED"),
        ("sweep", "FINISHED"),
    ]  # fmt: skip
    assert len(rows(store, "select distinct value from tags where key = 'mlflow.parentRunId'")) == 1


@pytest.mark.parametrize(
    ("fields", "environment", "reason"),
    [
        ({}, {"MLFLOW_TRACKING_URI": "http://me:hidden@127.0.0.1:9"}, "127.0.0.1"),
        ({"uri": "nonsense://nowhere"}, {}, "nonsense"),
        ({"patience": 0.01}, {}, "0.01"),
    ],
)
def test_a_failing_server_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], environment: dict[str, str], reason: str
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    context = bare(tmp_path / "run", tmp_path / "store")
    Tracking(**fields).track(context, {"name": "run"}, None, "finished")
    context.close()
    (warning,) = context.progress.warnings
    assert reason in warning
    assert "hidden" not in warning + (context.run_dir / "tracking.log").read_text()


def test_after_ctrl_c_the_child_finishes_by_itself(tmp_path: Path):
    context = bare(tmp_path / "run", tmp_path / "store")
    tracking = Tracking()
    tracking.start(context, {"name": "killed"})
    tracking.track(context, {}, None, "interrupted")
    left = context._kept["tracking"].process
    context.close()
    assert context.progress.warnings == []
    until_killed(tmp_path)
    assert left.wait(60) == 0


KILLED = """
import os, signal, sys, time
from pathlib import Path
from dsrl.infra.tracking import Tracking
from tests.e2e.test_tracking import bare
root = Path(sys.argv[1])
context = bare(root / "run", root / "store")
Tracking().start(context, {"name": "killed"})
print("started", flush=True)
time.sleep(600)
"""


def test_a_killed_run_is_marked_as_killed(tmp_path: Path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"started\n"
        run.send_signal(signal.SIGKILL)
    until_killed(tmp_path)


def test_a_run_killed_together_with_its_child_is_closed_later(tmp_path: Path):
    """As when a whole node fails: no process is left to report it."""
    context = bare(tmp_path / "run", tmp_path / "store")
    tracking = Tracking()
    assert tracking.prepare(tmp_path / "store", str(tmp_path / "sweep")) is None
    assert rows(tmp_path / "store", "select name, status from runs") == [("sweep", "FINISHED")]
    tracking.start(context, {"name": "killed"})
    child = context._kept["tracking"].process
    until_known(tmp_path / "store")
    child.kill()
    context.close()
    assert statuses(tmp_path / "store") == [("RUNNING",)]
    other = str((tmp_path / "other").absolute())
    assert tracking.close(tmp_path / "store", [other, str(context.run_dir.absolute())]) == {"closed": 1}
    assert statuses(tmp_path / "store") == [("KILLED",)]


def until_known(store: Path) -> None:
    deadline = time.monotonic() + 120
    while not statuses(store):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_the_series_are_mirrored_to_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    state, context = make_study(tmp_path, count=10)
    tracking = Tracking(wandb=True, sweep=str(tmp_path / "some-sweep"), patience=300.0)
    tracking.start(context, {"name": "counting", "n": 10})
    tracking.track(context, {}, state, "finished")
    context.close()
    assert len(context.progress.warnings) == 1  # the one of `make_study`
    (path,) = context.run_dir.glob("wandb/offline-run-*/run-*.wandb")
    written = path.read_bytes()
    for words in (b"counting", b"some-sweep", b"train/reward", b"train/step", b"evaluation/trained/pass_at_1"):
        assert words in written


def until_killed(folder: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (folder / "store" / ".mlflow.lock").exists() and statuses(folder / "store") == [("KILLED",)]:
            return
        time.sleep(0.2)
    pytest.fail("the run was not closed")


def statuses(store: Path) -> list[Any]:
    """Empty while MLflow is still creating its tables."""
    if not (store / "mlflow.db").exists() or not rows(store, "select 1 from sqlite_master where name = 'runs'"):
        return []
    return rows(store, "select status from runs where name = 'killed'")
