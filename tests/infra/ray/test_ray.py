"""What can be told of a Ray before there is one; a real one is in tests/e2e."""

import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dsrl.core.errors import StageFailed, UserError
from dsrl.infra.ray import LocalRay, RayAddress, SlurmRay
from dsrl.infra.ray.node_child import MARK, end, gather, options
from dsrl.infra.ray.ready import environment, ready
from dsrl.infra.ray.slurm import FIRST_PORT, port_of
from dsrl.infra.ray.start import started

TOLD = {
    "head": "10.0.0.1", "port": 20100, "fixed_ports": True, "cpus": None, "gpus": None, "object_store_gb": 0.5,
    "temporary": "/x", "ready_seconds": 5.0,
}  # fmt: skip


def silent(text: str) -> None:
    """Nobody listens."""


def test_the_head_and_the_others_get_what_slurm_gave_them(monkeypatch: pytest.MonkeyPatch) -> None:
    found = options(TOLD, 0, {"SLURM_CPUS_PER_TASK": "8", "SLURM_GPUS_ON_NODE": "4"})
    assert found[:4] == ["--head", "--port=20100", "--node-ip-address=10.0.0.1", "--include-dashboard=false"]
    for word in ("--num-cpus=8", "--num-gpus=4", "--object-store-memory=536870912", "--metrics-export-port=20105"):
        assert word in found
    monkeypatch.setattr("dsrl.infra.ray.node_child.towards", lambda host: "10.0.0.2")
    found = options({**TOLD, "gpus": 0, "cpus": 2}, 1, {"SLURM_GPUS_ON_NODE": "4"})
    assert found[:2] == ["--address=10.0.0.1:20100", "--node-ip-address=10.0.0.2"]
    assert {"--num-cpus=2", "--num-gpus=0"} <= set(found)


def test_jobs_that_share_a_node_share_no_port() -> None:
    ports = [port_of(str(job)) for job in range(1000, 1400)]
    assert len(set(ports)) == 400
    assert min(ports) == FIRST_PORT
    assert max(ports) < 32768 - 20  # above are those that systems hand out


def test_a_foreign_ray_is_not_in_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "somebody:6379")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/somewhere")
    found = environment(RAY_AUTH_TOKEN="ours")
    assert (found["RAY_AUTH_TOKEN"], "RAY_ADDRESS" in found, "RAY_AUTH_TOKEN_PATH" in found) == ("ours", False, False)


def fake(folder: Path, body: str) -> str:
    """An interpreter that says what Ray would."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_nodes_that_never_come_are_told_after_the_time_for_them(tmp_path: Path) -> None:
    python = fake(tmp_path, """echo '{"alive": 1, "cpus": 2, "gpus": 0}'; exec sleep 60""")
    with pytest.raises(StageFailed, match=r"1 of 2 nodes\n.*cluster.ready_seconds=..., or look into the log"):
        ready("10.0.0.1:1", 2, 0.3, python, {}, lambda: None, "the log")


def test_a_token_that_is_refused_is_told_at_once(tmp_path: Path) -> None:
    said = '{"refused": "InvalidAuthToken: Authentication token is missing or incorrect. Ensure that ..."}'
    python = fake(tmp_path, f"echo '{said}'; exec sleep 60")
    with pytest.raises(StageFailed, match=r"missing or incorrect.\n.*cluster.token_env"):
        ready("10.0.0.1:1", 1, 60.0, python, {}, lambda: None, "the log")


def test_daemons_that_end_are_told_with_the_end_of_their_log(tmp_path: Path) -> None:
    python = fake(
        tmp_path,
        'case "$*" in *node_child.py) echo "port 1 is in use on here"; exit 98;; '
        "*find_spec*) ;; *) exec sleep 60;; esac",
    )
    with (
        pytest.raises(StageFailed, match=r"exit code 98; .*\n.*port 1 is in use on here"),
        started(TOLD, [], 1, tmp_path / "logs", python, silent, {}),
    ):
        pass


def test_an_interpreter_without_ray_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Ray isn't installed"), LocalRay().open(tmp_path, sys.executable, silent):
        pass
    with pytest.raises(UserError, match="no such interpreter"), LocalRay().open(tmp_path, "/nowhere/python", silent):
        pass


def test_everything_that_a_ray_started_is_ended(tmp_path: Path) -> None:
    marked = {MARK: str(tmp_path)}
    ray = subprocess.Popen(["sleep", "60"], env=marked, start_new_session=True)
    escaped = subprocess.Popen(["sleep", "60"], env=marked, start_new_session=True)
    other = subprocess.Popen(["sleep", "60"], env={MARK: f"{tmp_path}x"}, start_new_session=True)
    end(ray, tmp_path)
    assert escaped.wait(5) == -signal.SIGKILL
    assert other.poll() is None
    other.kill()
    other.wait()


def test_logs_are_kept_as_far_as_they_are_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsrl.infra.ray.node_child.KEPT_BYTES", 10)
    logs = tmp_path / "session_2026" / "logs"
    logs.mkdir(parents=True)
    (logs / "raylet.out").write_text("12345678")
    (logs / "empty.log").write_text("")
    gather(tmp_path, tmp_path / "kept")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["raylet.out"]


@pytest.mark.parametrize("address", ["10.0.0.1", "ray://10.0.0.1:10001", "10.0.0.1:port", ""])
def test_an_address_without_a_port_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        RayAddress(address=address)


def test_what_is_wrong_with_an_address_is_told_before_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with pytest.raises(UserError, match="RAY_AUTH_TOKEN is not set"):
        RayAddress(address="127.0.0.1:1").check()
    with pytest.raises(UserError, match="nobody answers at 127"):
        RayAddress(address="127.0.0.1:1", token_env=None).check()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        RayAddress(address=f"127.0.0.1:{listener.getsockname()[1]}", token_env=None).check()


def test_outside_of_an_allocation_slurm_s_ray_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(UserError, match=r"dsrl submit .* cluster=slurm"):
        SlurmRay().check()


@pytest.mark.parametrize("fields", [{"port": 80}, {"ready_seconds": 0.0}, {"cpus": 0}, {"gpus": -1}])
def test_impossible_dials_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        SlurmRay(**fields)
