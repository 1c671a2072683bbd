import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dsrl.core import child_process
from tests.command import ENVIRONMENT

ECHO = """
import os, sys
from dsrl.core.child_process import end_with_parent
print("to the log", file=sys.stderr, flush=True)
end_with_parent(sys.stdin, lambda line: print(line.upper(), end="", flush=True))
print(os.getpid(), os.environ.get("OMP_NUM_THREADS"), flush=True)
import time
time.sleep(600)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a module that prints its process id and each input line in capitals, and runs for a long time."""
    (tmp_path / "echo_for_test.py").write_text(textwrap.dedent(ECHO))
    monkeypatch.syspath_prepend(str(tmp_path))
    return "echo_for_test"


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie counts as ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def wait_until_gone(pid: int) -> None:
    while not gone(pid):
        os.sched_yield()


def test_child_answers_and_logs_and_stops(module: str, tmp_path: Path) -> None:
    process = child_process.start(module, [], tmp_path / "logs" / "echo.log", threads=3, answers=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == f"{process.pid} 3\n"
    process.stdin.write("hello\n")
    process.stdin.flush()
    assert process.stdout.readline() == "HELLO\n"
    child_process.stop(process)
    assert process.returncode == 0
    assert child_process.tail(tmp_path / "logs" / "echo.log") == "to the log"


def test_child_that_ignores_the_end_of_input_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deaf_for_test.py").write_text("import time\nprint('up', flush=True)\ntime.sleep(600)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(child_process, "STOP_SECONDS", 0.05)
    process = child_process.start("deaf_for_test", [], tmp_path / "log", threads=None, answers=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    child_process.stop(process)
    assert process.returncode == -signal.SIGKILL


PARENT = """
import subprocess, sys
from pathlib import Path
from dsrl.core import child_process
process = child_process.start("echo_for_test", [], Path(sys.argv[1]), None, subprocess.PIPE)
print(process.stdout.readline().split()[0], flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_child_outlives_its_parent(module: str, tmp_path: Path, sign: signal.Signals) -> None:
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}"}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "log")],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert not gone(pid)
    parent.send_signal(sign)
    parent.communicate()
    wait_until_gone(pid)


@pytest.mark.parametrize(
    ("code", "words"), [(1, "exit code 1"), (-9, "killed by signal 9 (out of memory?)"), (-15, "killed by signal 15")]
)
def test_description_of_an_exit_status(code: int, words: str) -> None:
    assert child_process.end_in_words(code) == words


SECRETS = (
    "OPENAI_API_KEY",
    "AWS_SECRET_ACCESS_KEY",
    "WANDB_API_KEY",
    "HF_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "RAY_AUTH_TOKEN",
)


def test_child_inherits_no_secrets_but_its_own() -> None:
    environment = dict.fromkeys(SECRETS, "secret") | {"HOME": "/home/me", "TOKENIZERS_PARALLELISM": "true"}
    assert not set(SECRETS) & child_process.inherited_environment(environment).keys()
    assert child_process.inherited_environment(environment)["HOME"] == "/home/me"
    with_hub = child_process.inherited_environment(environment, child_process.HUB_SECRETS)
    assert set(SECRETS) & with_hub.keys() == {"HF_TOKEN"}
    tracking = child_process.inherited_environment(environment, ["MLFLOW_*", "WANDB_*"])
    assert set(SECRETS) & tracking.keys() == {"MLFLOW_TRACKING_PASSWORD", "WANDB_API_KEY"}


@pytest.mark.parametrize(
    "name", ["WORLD_SIZE", "RANK", "MASTER_ADDR", "SLURM_PROCID", "PMI_RANK", "OMPI_COMM_WORLD_SIZE"]
)
def test_child_is_not_part_of_a_surrounding_distributed_job(name: str) -> None:
    assert name not in child_process.inherited_environment({name: "2"})


def test_child_sends_no_telemetry() -> None:
    environment = child_process.inherited_environment({"HF_HUB_DISABLE_TELEMETRY": "0"})
    assert (environment["HF_HUB_DISABLE_TELEMETRY"], environment["RAY_USAGE_STATS_ENABLED"]) == ("1", "0")


TMP = "/tmp"  # noqa: S108


@pytest.mark.parametrize(("folder", "expected"), [("/scratch/me", "/scratch/me"), ("/scratch/" + "x" * 60, TMP)])
def test_temporary_folder_has_room_for_sockets(folder: str, expected: str) -> None:
    assert child_process.inherited_environment({"TMPDIR": folder})["TMPDIR"] == expected


def test_tail_begins_with_the_causes_and_ignores_earlier_attempts(tmp_path: Path) -> None:
    log = tmp_path / "log"
    noise = "".join(f"line {number}\n" for number in range(20))
    log.write_text(
        f"{child_process.START_LINE} x\nOldError: of the first attempt\n{child_process.START_LINE} x\nTraceback\n"
        f"(EngineCore pid=7) ValueError: max seq len is larger\n{noise}RuntimeError: Engine core failed\n"
    )
    lines = child_process.tail(log).splitlines()
    assert lines[:2] == ["(EngineCore pid=7) ValueError: max seq len is larger", "..."]
    assert lines[-1] == "RuntimeError: Engine core failed"
    assert len(lines) == child_process.TAIL_LINES + 2
    assert "OldError" not in child_process.tail(log)
