"""A real Ray on this machine, beside another."""

import subprocess
from pathlib import Path

import pytest

from dsrl.cluster import LocalRay, RayAddress
from dsrl.errors import StageFailed

from .rays import marked, ray_python

pytestmark = pytest.mark.e2e
SQUARES = """
import ray
ray.init(log_to_driver=False)
square = ray.remote(lambda number: number * number)
print(ray.get([square.remote(number) for number in range(4)]))
"""


def test_ours_is_used_and_ended_and_another_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python, said = ray_python(), []
    small = LocalRay(cpus=2, gpus=1, object_store_gb=0.1)
    with small.open(tmp_path / "theirs", python) as theirs:
        monkeypatch.setenv("RAY_ADDRESS", theirs.address)
        with LocalRay(cpus=1, gpus=0, object_store_gb=0.1).open(tmp_path / "ours", python, said.append) as ours:
            assert (ours.nodes, ours.cpus, ours.gpus) == (1, 1, 0)
            assert said == [f"Ray {ours.address}: 1 nodes, 1 CPUs, 0 GPUs"]
            monkeypatch.setenv("RAY_AUTH_TOKEN", "not theirs")
            address = RayAddress(address=theirs.address, ready_seconds=60.0)
            with pytest.raises(StageFailed, match="refuses us"), address.open(tmp_path, python, said.append):
                pass
        assert list((tmp_path / "ours" / "ray").rglob("raylet.out"))
        monkeypatch.setenv("RAY_AUTH_TOKEN", theirs.environment["RAY_AUTH_TOKEN"])
        with RayAddress(address=theirs.address).open(tmp_path, python) as still:
            done = subprocess.run([python, "-c", SQUARES], env=still.environment, capture_output=True, text=True)
            assert done.stdout.strip() == "[0, 1, 4, 9]", done.stderr
    assert marked() == []
