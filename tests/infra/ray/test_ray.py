"""Starting, finding and stopping a Ray, with fake programs in its place; a real one is in tests/e2e."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dsrl.core.errors import StageFailed, UserError
from dsrl.infra.ray import LocalRay, RayAddress, SlurmRay
from dsrl.infra.ray.node_child import FOLDER_VARIABLE, keep_logs, kill_ray, ray_start_options
from dsrl.infra.ray.own import start_ray
from dsrl.infra.ray.ready import ray_environment, wait_until_ready
from dsrl.infra.ray.slurm import FIRST_PORT, own_address, port_of_job
from tests.infra.slurm.fake_commands import fake_commands

SETTINGS = {
    "head": "10.0.0.1",
    "port": 20100,
    "fixed_ports": True,
    "cpus": None,
    "gpus": None,
    "object_store_gb": 0.5,
    "temporary": "/x",
    "ready_seconds": 5.0,
}


def ignore(text: str) -> None:
    """Discard progress messages."""


def never_fails() -> None:
    """A Ray whose start doesn't fail."""


def test_options_of_head_and_other_nodes_follow_from_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ray_start_options(SETTINGS, 0, {"SLURM_CPUS_PER_TASK": "8", "SLURM_GPUS_ON_NODE": "4"})
    assert options[:4] == ["--head", "--port=20100", "--node-ip-address=10.0.0.1", "--include-dashboard=false"]
    for option in ("--num-cpus=8", "--num-gpus=4", "--object-store-memory=536870912", "--metrics-export-port=20105"):
        assert option in options
    monkeypatch.setattr("dsrl.infra.ray.node_child.address_towards", lambda host: "10.0.0.2")
    options = ray_start_options({**SETTINGS, "gpus": 0, "cpus": 2}, 1, {"SLURM_GPUS_ON_NODE": "4"})
    assert options[:2] == ["--address=10.0.0.1:20100", "--node-ip-address=10.0.0.2"]
    assert {"--num-cpus=2", "--num-gpus=0"} <= set(options)


def test_jobs_on_one_node_have_different_ports() -> None:
    ports = [port_of_job(str(job)) for job in range(1000, 1400)]
    assert len(set(ports)) == 400
    assert min(ports) == FIRST_PORT
    assert max(ports) < 32768 - 20, "below the ephemeral range"


def test_environment_has_no_address_of_another_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "other:6379")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/other")
    found = ray_environment(RAY_AUTH_TOKEN="ours")
    assert found["RAY_AUTH_TOKEN"] == "ours"
    assert not {"RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH"} & found.keys()


def fake_python(folder: Path, body: str) -> str:
    """A program in place of the interpreter that has Ray."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_missing_nodes_are_reported_after_the_timeout(tmp_path: Path) -> None:
    python = fake_python(tmp_path, f"echo '{json.dumps({'alive': 1, 'cpus': 2, 'gpus': 0})}'; exec sleep 60")
    with pytest.raises(StageFailed, match=r"1 of 2 nodes\n.*cluster\.ready_seconds"):
        wait_until_ready("10.0.0.1:1", 2, 0.3, python, {}, never_fails, "the log")


def test_rejected_token_is_reported_at_once(tmp_path: Path) -> None:
    answer = {"refused": "InvalidAuthToken: Authentication token is missing or incorrect. Ensure that ..."}
    python = fake_python(tmp_path, f"echo '{json.dumps(answer)}'; exec sleep 60")
    with pytest.raises(StageFailed, match=r"InvalidAuthToken.*incorrect.\n.*cluster\.token_env"):
        wait_until_ready("10.0.0.1:1", 1, 60.0, python, {}, never_fails, "the log")


def test_failed_start_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    python = fake_python(
        tmp_path,
        'case "$*" in *node_child.py) echo "port 1 is in use on here"; exit 98;; '
        "*find_spec*) ;; *) exec sleep 60;; esac",
    )
    with (
        pytest.raises(StageFailed, match=r"exit code 98; .*\n.*port 1 is in use on here"),
        start_ray(SETTINGS, [], 1, tmp_path / "logs", python, ignore, {}),
    ):
        pass


def test_interpreter_must_exist_and_have_ray(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dsrl\[ray\]"), LocalRay().open(tmp_path, sys.executable, ignore):
        pass
    with pytest.raises(UserError, match="/nowhere/python"), LocalRay().open(tmp_path, "/nowhere/python", ignore):
        pass


def test_all_processes_of_a_ray_are_killed_in_whatever_session(tmp_path: Path) -> None:
    marked = {FOLDER_VARIABLE: str(tmp_path)}
    ray = subprocess.Popen(["sleep", "60"], env=marked, start_new_session=True)
    escaped = subprocess.Popen(["sleep", "60"], env=marked, start_new_session=True)
    other = subprocess.Popen(["sleep", "60"], env={FOLDER_VARIABLE: f"{tmp_path}x"}, start_new_session=True)
    kill_ray(ray, tmp_path)
    assert escaped.wait(5) == -signal.SIGKILL
    assert other.poll() is None
    other.kill()
    other.wait()


def test_logs_are_kept_up_to_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsrl.infra.ray.node_child.MAX_LOG_BYTES", 10)
    logs = tmp_path / "session_2026" / "logs"
    logs.mkdir(parents=True)
    (logs / "raylet.out").write_text("12345678")
    (logs / "empty.log").write_text("")
    keep_logs(tmp_path, tmp_path / "kept")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["raylet.out"]


@pytest.mark.parametrize("address", ["10.0.0.1", "ray://10.0.0.1:10001", "10.0.0.1:port", ""])
def test_address_needs_a_port(address: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        RayAddress(address=address)


def test_address_is_checked_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with pytest.raises(UserError, match="RAY_AUTH_TOKEN"):
        RayAddress(address="127.0.0.1:1").check()
    with pytest.raises(UserError, match=r"127\.0\.0\.1:1"):
        RayAddress(address="127.0.0.1:1", token_env=None).check()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        RayAddress(address=f"127.0.0.1:{listener.getsockname()[1]}", token_env=None).check()


def test_slurm_ray_needs_an_allocation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(UserError, match=r"dsrl submit .* cluster=slurm"):
        SlurmRay().check()


@pytest.mark.parametrize("fields", [{"port": 80}, {"ready_seconds": 0.0}, {"cpus": 0}, {"gpus": -1}])
def test_impossible_fields_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        SlurmRay(**fields)


def test_address_of_a_node_whose_name_does_not_resolve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm's node names need not be host names; Slurm knows their addresses."""
    node = "NodeName=gpu-2 Arch=x86_64 CoresPerSocket=1\n   NodeAddr=127.0.0.1 NodeHostName=gpu-2 Version=22.05"
    fake_commands(tmp_path, monkeypatch, scontrol=node)
    assert own_address([socket.gethostname(), "gpu-2.invalid"]) == "127.0.0.1"
    assert own_address([socket.gethostname()]) == "127.0.0.1"


def test_unknown_node_address_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_commands(tmp_path, monkeypatch, scontrol="NodeName=gpu-2 NodeAddr=gpu-2.invalid")
    with pytest.raises(StageFailed, match=r"gpu-2\.invalid(.|\n)*NodeAddr"):
        own_address(["gpu-2.invalid"])
