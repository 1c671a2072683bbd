"""With a program of the tests in the place of vLLM, which is heavy: what is tested is how it is started and ended."""

import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from pathlib import Path

import pytest

from dsrl.core.child_process import STOP_SECONDS
from dsrl.core.errors import StageFailed, UserError
from dsrl.llm import VllmServer
from tests.command import ENVIRONMENT

FAKE = """\
#!{python}
import json, os, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
print("arguments", json.dumps(sys.argv[1:]), "pid", os.getpid(), flush=True)
{before}
flags = dict(flag[2:].split("=", 1) for flag in sys.argv[3:] if "=" in flag)

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

HTTPServer((flags["host"], int(flags["port"])), Handler).serve_forever()
"""


def fake(folder: Path, before: str = "") -> str:
    """A program that is told what `vllm` is told."""
    path = folder / "vllm"
    path.write_text(FAKE.format(python=sys.executable, before=before))
    path.chmod(0o755)
    return str(path)


def pids(log: Path) -> list[int]:
    return [int(line.rsplit(" ", 1)[1]) for line in log.read_text().splitlines() if " pid " in line]


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until_gone(pid: int) -> None:
    end = time.monotonic() + 3 * STOP_SECONDS
    while not gone(pid):
        assert time.monotonic() < end, "it is still there"
        time.sleep(0.05)


def test_it_is_told_what_to_serve_and_ends_with_the_run(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "vllm.log"
    helper = "subprocess.Popen(['sleep', '600'], start_new_session=False)"
    server = VllmServer(
        model="some/model",
        revision="abc",
        args={"max-model-len": 512, "enforce_eager": True, "async-scheduling": False},
        speed_args={"tensor-parallel-size": 2},
        command=fake(tmp_path, helper),
        log=str(log),
    )
    running = server.start()
    try:
        with urllib.request.urlopen(running.url.removesuffix("/v1") + "/health", timeout=10) as answer:
            assert answer.status == 200
    finally:
        running.stop()
    running.stop()
    said = log.read_text()
    for word in (
        '"serve", "some/model"',
        '"--served-model-name=some/model"',
        '"--revision=abc"',
        '"--max-model-len=512"',
        '"--enforce-eager"',
        '"--tensor-parallel-size=2"',
    ):
        assert word in said
    assert "async-scheduling" not in said
    (pid,) = pids(log)
    wait_until_gone(pid)


def test_it_ends_with_a_run_that_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "vllm.log"
    script = f"""
        import time
        from dsrl.llm import VllmServer
        VllmServer(model="m", command={fake(tmp_path)!r}, log={str(log)!r}).start()
        print("up", flush=True)
        time.sleep(600)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "up\n"
    (pid,) = pids(log)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    wait_until_gone(pid)


def test_one_that_does_not_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    command = fake(tmp_path, "sys.exit('no such model: m')")
    with pytest.raises(StageFailed, match=r"(?s)exited while starting \(exit code 1\).*no such model: m"):
        VllmServer(model="m", command=command, log=str(tmp_path / "log")).start()


def test_one_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    command, log = fake(tmp_path, "time.sleep(600)"), tmp_path / "log"
    with pytest.raises(StageFailed, match=r"did not answer within 0\.6 s"):
        VllmServer(model="m", command=command, log=str(log), ready=0.6).start()
    for pid in pids(log):
        wait_until_gone(pid)


def test_a_machine_without_vllm_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pip install vllm"):
        VllmServer(model="m", command=str(tmp_path / "nothing")).start()


def test_speed_is_not_part_of_what_it_is() -> None:
    one = VllmServer(model="m", args={"dtype": "float16"})
    assert (
        one.key_fields() == VllmServer(model="m", args={"dtype": "float16"}, speed_args={"a": 1}, port=5).key_fields()
    )
    assert one.key_fields() != VllmServer(model="m").key_fields()
