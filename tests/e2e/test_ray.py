"""A real Ray cluster on this machine, beside another one."""

import subprocess
from pathlib import Path

import pytest

from dsrl.core.errors import StageFailed
from dsrl.infra.ray import LocalRay, RayAddress
from tests.command import CHECKOUT
from tests.e2e.rays import marked, ray_python

pytestmark = pytest.mark.e2e
SQUARES = """
import ray
ray.init(log_to_driver=False)
square = ray.remote(lambda number: number * number)
print(ray.get([square.remote(number) for number in range(4)]))
"""
ENDS = """
import os, ray, resource, torch
from dsrl.stages.train.failure_causes import error_cause
ray.init(log_to_driver=False)
@ray.remote
class Worker:
    def big(self):
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
        return torch.empty(1 << 38)
    def gpu(self):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    def killed(self):
        os.kill(os.getpid(), 9)
for name in ("big", "gpu", "killed"):
    try:
        ray.get(getattr(Worker.remote(), name).remote())
    except ray.exceptions.RayError as error:
        print(name, "|", " ".join(error_cause(f"{type(error).__name__}: {error}").split()))
"""


def test_our_cluster_is_stopped_and_another_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python, said, before = ray_python(), [], marked()
    small = LocalRay(cpus=2, gpus=1, object_store_gb=0.1)
    with small.open(tmp_path / "theirs", python) as theirs:
        monkeypatch.setenv("RAY_ADDRESS", theirs.address)
        with LocalRay(cpus=1, gpus=0, object_store_gb=0.1).open(tmp_path / "ours", python, said.append) as ours:
            assert (ours.nodes, ours.cpus, ours.gpus) == (1, 1, 0)
            assert [ours.address in line for line in said] == [True]
            monkeypatch.setenv("RAY_AUTH_TOKEN", "not theirs")
            address = RayAddress(address=theirs.address, ready_seconds=60.0)
            with pytest.raises(StageFailed, match="token"), address.open(tmp_path, python, said.append):
                pass
        assert list((tmp_path / "ours" / "ray").rglob("raylet.out"))
        monkeypatch.setenv("RAY_AUTH_TOKEN", theirs.environment["RAY_AUTH_TOKEN"])
        with RayAddress(address=theirs.address).open(tmp_path, python) as still:
            done = subprocess.run([python, "-c", SQUARES], env=still.environment, capture_output=True, text=True)
            assert done.stdout.strip() == "[0, 1, 4, 9]", done.stderr
    assert marked() <= before


def test_causes_of_a_worker_failure_are_recognised(tmp_path: Path) -> None:
    """An allocation beyond a kernel limit, torch's own out-of-memory error, and a kill from outside."""
    python, before = ray_python(), marked()
    with LocalRay(cpus=2, gpus=0, object_store_gb=0.1).open(tmp_path, python) as ray:
        environment = {**ray.environment, "PYTHONPATH": str(CHECKOUT)}
        done = subprocess.run([python, "-c", ENDS], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = dict(line.split(" | ") for line in done.stdout.splitlines() if " | " in line)
    assert "train.device_batch" in said["big"]
    assert "allocate memory" in said["big"]
    assert "GPU memory" in said["gpu"]
    assert "Tried to allocate 20.00 GiB" in said["gpu"]
    assert "killed" in said["killed"]
    assert marked() <= before
