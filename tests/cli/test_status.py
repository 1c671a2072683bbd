import json
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsrl.main import run_command
from tests.infra.slurm.fake_commands import fake_commands

Call = Callable[..., tuple[int, str]]
HERE = {"host": socket.gethostname(), "pid": os.getpid(), "started": time.time() + 10}


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`dsrl status ...` in a folder of its own: exit code and all that it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")

    def called(*arguments: str) -> tuple[int, str]:
        code = run_command(["status", *arguments])
        said = capsys.readouterr()
        return code, said.out + said.err

    return called


def run(folder: str, **said: Any) -> Path:
    """A run whose `status.json` says this."""
    path = Path(folder)
    path.mkdir(parents=True)
    if said:
        (path / "status.json").write_text(json.dumps(said))
    return path


def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen(["/bin/true"])
    process.wait()
    return process.pid


def test_no_runs_are_no_fault(call: Call) -> None:
    assert call() == (0, "no runs here: dsrl status looks into runs/ and multirun/ of the working folder\n")


def test_runs_here_and_jobs_of_sweeps_are_listed(call: Call) -> None:
    run("runs/day/a", status="finished", **HERE)
    going = run("runs/day/b", status="running", **HERE)
    (going / "metrics.json").write_text('{"stages": {"retrieve": {}, "generate": {}}}')
    run("multirun/day/x/0", status="failed", **HERE)
    code, said = call()
    assert code == 0
    for line in ("finished     runs/day/a", "running      runs/day/b  after generate", "failed       multirun/day/x/0"):
        assert line in said


@pytest.mark.parametrize("pid", [dead(), os.getpid()], ids=["gone", "somebody else's"])
def test_a_run_whose_process_is_gone_was_killed_and_is_closed_once(pid: int, call: Call) -> None:
    """Also where its number has gone to another, younger process."""
    folder = run("runs/day/a", status="running", **{**HERE, "pid": pid, "started": 1.0})
    assert "killed       runs/day/a" in call()[1]
    assert json.loads((folder / "status.json").read_text())["status"] == "killed"


def test_a_run_on_another_machine_is_believed(call: Call) -> None:
    run("runs/day/a", status="running", **{**HERE, "host": "elsewhere", "pid": dead()})
    assert "running      runs/day/a" in call()[1]


STATES = [
    ("running", "7|RUNNING|None", "", "running      runs/day/a  job 7: RUNNING"),
    ("running", "7|TIMEOUT|TimeLimit", "7|TIMEOUT|0:0", "killed       runs/day/a  job 7: TIMEOUT 0:0"),
    ("running", "", "", "killed       runs/day/a  job 7: FORGOTTEN"),
    ("interrupted", "7|PENDING|BeginTime", "", "queued       runs/day/a  job 7: PENDING (BeginTime)"),
    ("interrupted", "", "7|CANCELLED by 0|0:15", "interrupted  runs/day/a  job 7: CANCELLED 0:15"),
    ("failed", "", "7|FAILED|3:0", "failed       runs/day/a  job 7: FAILED 3:0"),
]


@pytest.mark.parametrize(("status", "queue", "accounts", "line"), STATES)
def test_a_job_stands_as_slurm_says(
    status: str, queue: str, accounts: str, line: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_commands(tmp_path, monkeypatch, squeue=queue, sacct=accounts)
    run("runs/day/a", status=status, slurm_job="7", **{**HERE, "host": "node1"})
    assert line in call()[1]


def test_a_job_is_found_by_its_number_before_and_after_it_began(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_commands(tmp_path, monkeypatch, squeue="8|PENDING|Priority", sacct="")
    waiting = run("runs/day/b")
    (waiting / "submission.json").write_text('{"job": "8"}')
    begun = run("runs/day/a", status="failed", slurm_job="7", reason="no more disk", **HERE)
    (begun / "slurm-7.log").write_text("first\n" + "line\n" * 20 + "last\n")
    assert call("8")[1] == "queued       runs/day/b  job 8: PENDING (Priority)\n"
    said = call("7")[1]
    for words in ("failed       runs/day/a", "reason no more disk", "log    runs/day/a/slurm-7.log", "  | last"):
        assert words in said
    assert "  | first" not in said
    assert "runs/day/b" not in said


def test_a_sweep_is_shown_job_by_job(call: Call, tmp_path: Path) -> None:
    run("multirun/day/x/0", status="finished", **HERE)
    run("multirun/day/x/1")
    jobs = [{"job": f"4_{number}", "folder": str(tmp_path / f"multirun/day/x/{number}")} for number in (0, 1)]
    Path("multirun/day/x/sweep.json").write_text(json.dumps(jobs))
    lines = call("multirun/day/x")[1].splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["finished", "multirun/day/x/0"], ["queued", "multirun/day/x/1"]
    ]  # fmt: skip


@pytest.mark.parametrize("arguments", [("nope",), ("a", "b"), ("--all",)])
def test_what_is_not_there_is_told(arguments: tuple[str, ...], call: Call) -> None:
    code, said = call(*arguments)
    assert (code, "dsrl status" in said) == (2, True)


def test_a_run_that_mlflow_can_t_be_told_of_is_tried_again(call: Call) -> None:
    folder = run("runs/day/a", status="running", **{**HERE, "pid": dead()})
    (folder / "run.json").write_text(json.dumps({"folder": str(Path.cwd())}))
    tracking = "{_target_: dsrl.infra.tracking.Tracking, patience: 0.01}"
    (folder / "config.yaml").write_text(f"store: store\ntracking: {tracking}\n")
    code, said = call()
    assert (code, "can't be closed in MLflow: no answer" in said) == (0, True)
    assert json.loads((folder / "status.json").read_text())["status"] == "running"
