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
end_with_parent(sys.stdin, lambda line: print(line.upper(), end="", flush=True))
print(os.getpid(), os.environ.get("OMP_NUM_THREADS"), flush=True)
print("to the log", file=sys.stderr, flush=True)
import time
time.sleep(600)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that says its process id, repeats what it is told in capitals, and would run for long."""
    (tmp_path / "echo_for_test.py").write_text(textwrap.dedent(ECHO))
    monkeypatch.syspath_prepend(str(tmp_path))
    return "echo_for_test"


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for counts as ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def wait_until_gone(pid: int) -> None:
    while not gone(pid):
        os.sched_yield()


def test_a_child_answers_logs_and_ends_when_it_is_told(module: str, tmp_path: Path) -> None:
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


def test_a_child_that_does_not_listen_is_ended_by_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_no_child_outlives_its_parent_however_that_ends(module: str, tmp_path: Path, sign: signal.Signals) -> None:
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
def test_how_a_child_ended_is_said_in_words(code: int, words: str) -> None:
    assert child_process.end_in_words(code) == words
