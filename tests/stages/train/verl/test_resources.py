"""Resources on a given Ray, and checks of its nodes. A real Ray is in tests/e2e."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsrl.core.errors import UserError
from dsrl.infra.ray import LocalRay, RayAddress, SlurmRay
from dsrl.infra.ray.base import RunningRay
from dsrl.stages.train import Grpo, Verl
from dsrl.stages.train.verl.nodes import SAME_VERSION, check_node, inspect_node
from dsrl.stages.train.verl.resources import VerlResources, check_world_size, resolve_resources


def ray(*gpus: int, cpus: int = 1000) -> RunningRay:
    return RunningRay("10.0.0.1:6379", len(gpus), cpus, sum(gpus), {}, {"env_vars": {"A": "1"}}, gpus)


def planned(gpus: int) -> VerlResources:
    return Verl(algorithm=Grpo(), gpus=gpus, cluster=LocalRay()).resources()


@pytest.mark.parametrize(
    ("plan", "gpus_given", "found", "expected"),
    [
        (planned(0), True, (1, 1), (2, 0, 2)),  # the CPUs of two nodes
        (planned(8), False, (8, 8, 0), (2, 8, 16)),  # a head without GPUs takes no part
        (planned(1), False, (8, 4), (2, 4, 8)),
        (planned(4), True, (8, 8), (2, 4, 8)),
        (planned(8), True, (8, 4), (1, 8, 8)),
    ],
)
def test_nodes_and_gpus_follow_from_the_ray(
    plan: VerlResources, gpus_given: bool, found: tuple[int, ...], expected: tuple[int, int, int]
) -> None:
    resources = resolve_resources(plan, ray(*found), gpus_given=gpus_given)
    assert (resources.nodes, resources.gpus, resources.devices) == expected
    assert (resources.address, resources.runtime_env) == ("10.0.0.1:6379", {"env_vars": {"A": "1"}})


@pytest.mark.parametrize(
    ("plan", "found", "numbers"),
    [
        (planned(4), ray(2, 2), r"2, 2 on its nodes\n.*4 or more"),
        (planned(0), ray(0, 0), "--num-gpus=1"),
        (planned(8), ray(8, 8, cpus=32), r"32 on 2 nodes\n.*60 or more"),
    ],
)
def test_ray_that_could_never_start_the_training_is_refused(
    plan: VerlResources, found: RunningRay, numbers: str
) -> None:
    with pytest.raises(UserError, match=numbers):
        resolve_resources(plan, found, gpus_given=True)


def test_own_ray_declares_what_verl_reserves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
    own = SlurmRay().with_resources(8, 1)
    assert (own.cpus, own.gpus) == (8, 1)
    assert SlurmRay(cpus=4, gpus=2).with_resources(8, 4) == SlurmRay(cpus=4, gpus=2)
    assert SlurmRay(gpus=0).with_resources(8, 1).gpus == 1, "declared, for veRL, although there is none"
    existing = RayAddress(address="10.0.0.1:6379")
    assert existing.with_resources(8, 1) is existing


def test_gpus_of_another_cluster_are_not_counted_on_this_machine() -> None:
    resources = Verl(algorithm=Grpo(), cluster=RayAddress(address="10.0.0.1:6379", nodes=4)).resources()
    assert resources.nodes == 4
    assert resources.gpus >= 1


def test_checkpoint_needs_the_number_of_processes_that_wrote_it(tmp_path: Path) -> None:
    (tmp_path / "global_step_2" / "actor").mkdir(parents=True)
    for rank in range(2):
        (tmp_path / "global_step_2" / "actor" / f"model_world_size_2_rank_{rank}.pt").touch()
    stage = Verl(algorithm=Grpo(), gpus=0, cluster=LocalRay())
    job = stage.assumed_job()
    check_world_size(job, stage.resources())
    with pytest.raises(UserError, match=r"1 nodes x 1\n.*2 in all"):
        check_world_size(replace(job, resume=str(tmp_path / "global_step_2")), stage.resources())


FINE: dict[str, Any] = {"seen": True, "writable": True, "versions": dict.fromkeys(SAME_VERSION, "1"), "gpus": 0}


@pytest.mark.parametrize(
    ("report", "named"),
    [
        ({"error": "No module named 'dsrl'"}, r"node b(.|\n)*No module named 'dsrl'"),
        ({**FINE, "seen": False, "writable": False}, "node b(.|\n)*store=FOLDER"),
        ({**FINE, "writable": False}, "node b(.|\n)*read-only(.|\n)*store=FOLDER"),
        ({**FINE, "versions": {**FINE["versions"], "vllm": None}}, "node b(.|\n)*vllm"),
    ],
)
def test_unsuitable_node_is_named(report: dict[str, Any], named: str) -> None:
    job = Verl(algorithm=Grpo(), gpus=0, cluster=LocalRay()).assumed_job()
    check_node("a", FINE, FINE, job, planned(0))
    with pytest.raises(UserError, match=named):
        check_node("b", report, FINE, job, planned(0))


def test_node_with_too_few_gpus_is_refused() -> None:
    job = Verl(algorithm=Grpo(), gpus=2, cluster=LocalRay()).assumed_job()
    with pytest.raises(UserError, match=r"train\.gpus=2"):
        check_node("b", {**FINE, "gpus": 1}, FINE, job, planned(2))


def test_inspection_of_this_node(tmp_path: Path) -> None:
    report = inspect_node(str(tmp_path), 0)
    assert (report["seen"], report["writable"], report["gpus"]) == (True, True, 0)
    assert report["versions"]["dsrl"]
    assert not inspect_node(str(tmp_path / "no"), 0)["seen"]
