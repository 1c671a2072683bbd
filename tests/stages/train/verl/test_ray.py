"""What follows from the Ray that is there, and what is told of nodes and ends; a real one is in tests/e2e."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsrl.core.errors import UserError
from dsrl.infra.ray import LocalRay, RayAddress, SlurmRay
from dsrl.infra.ray.base import Ray
from dsrl.stages.train import Grpo, Verl
from dsrl.stages.train.verl import nodes
from dsrl.stages.train.verl.config import patch
from dsrl.stages.train.verl.failure_causes import cause, want
from dsrl.stages.train.verl.ray_resources import same_shards, settled
from dsrl.stages.train.verl.resources import Setup


def ray(*gpus: int, cpus: int = 1000) -> Ray:
    return Ray("10.0.0.1:6379", len(gpus), cpus, sum(gpus), {}, {"env_vars": {"A": "1"}}, gpus)


def setup(gpus: int | None = None, here: int = 0) -> Setup:
    stage = Verl(algorithm=Grpo(), gpus=here if gpus is None else gpus, cluster=LocalRay())
    return stage.setup()


@pytest.mark.parametrize(
    ("supposed", "named", "found", "expected"),
    [
        (setup(0), True, (1, 1), (2, 0, 2)),  # CPUs of two nodes
        (setup(8), False, (8, 8, 0), (2, 8, 16)),  # a head without GPUs takes no part
        (setup(1), False, (8, 4), (2, 4, 8)),
        (setup(4), True, (8, 8), (2, 4, 8)),
        (setup(8), True, (8, 4), (1, 8, 8)),
    ],
)
def test_nodes_and_gpus_follow_from_the_ray(
    supposed: Setup, named: bool, found: tuple[int, ...], expected: tuple[int, int, int]
) -> None:
    made = settled(supposed, ray(*found), named=named)
    assert (made.nodes, made.gpus, made.devices) == expected
    assert (made.address, made.runtime_env) == ("10.0.0.1:6379", {"env_vars": {"A": "1"}})


@pytest.mark.parametrize(
    ("supposed", "found", "words"),
    [
        (setup(4), ray(2, 2), r"no node of the Ray has so many\n.*2, 2 on its nodes\n.*4 or more"),
        (setup(0), ray(0, 0), r"without GPUs must declare one(.|\n)*--num-gpus=1"),
        (setup(8), ray(8, 8, cpus=32), r"fewer CPUs than veRL's processes claim(.|\n)*32 on 2 nodes\n.*60 or more"),
    ],
)
def test_a_ray_on_which_nothing_would_ever_begin_is_refused(supposed: Setup, found: Ray, words: str) -> None:
    with pytest.raises(UserError, match=words):
        settled(supposed, found, named=True)


def test_all_nodes_train(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    stage = Verl(algorithm=Grpo(), gpus=0, cluster=SlurmRay())
    found = patch(stage._supposed(), 100, validates=True)
    assert (found["trainer.nnodes"], found["trainer.n_gpus_per_node"]) == (2, 1)
    assert found["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu"] == 32
    with pytest.raises(UserError, match="63, 2 GPUs"):
        Verl(algorithm=Grpo(prompts_per_step=7, responses_per_prompt=9), gpus=0, cluster=SlurmRay()).check()


def test_our_own_rays_declare_what_verl_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
    made = SlurmRay().declaring(8, 1)
    assert (made.cpus, made.gpus) == (8, 1)
    assert SlurmRay(cpus=4, gpus=2).declaring(8, 4) == SlurmRay(cpus=4, gpus=2)
    assert SlurmRay(gpus=0).declaring(8, 1).gpus == 1  # in name
    theirs = RayAddress(address="10.0.0.1:6379")
    assert theirs.declaring(8, 1) is theirs


def test_gpus_elsewhere_are_not_counted_here() -> None:
    stage = Verl(algorithm=Grpo(), cluster=RayAddress(address="10.0.0.1:6379", nodes=4))
    assert (stage.setup().nodes, stage.setup().gpus >= 1) == (4, True)


def test_a_checkpoint_goes_on_with_as_many_processes(tmp_path: Path) -> None:
    (tmp_path / "global_step_2" / "actor").mkdir(parents=True)
    for rank in range(2):
        (tmp_path / "global_step_2" / "actor" / f"model_world_size_2_rank_{rank}.pt").touch()
    stage = Verl(algorithm=Grpo(), gpus=0, cluster=LocalRay())
    job = stage._supposed()
    same_shards(job, stage.setup())
    with pytest.raises(UserError, match=r"another number of processes(.|\n)*1 nodes x 1\n.*2 in all"):
        same_shards(replace(job, resume=str(tmp_path / "global_step_2")), stage.setup())


FINE: dict[str, Any] = {"seen": True, "writable": True, "versions": dict.fromkeys(nodes.SAME, "1"), "gpus": 0}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"error": "No module named 'dsrl'"}, r"node b can't run the trainer\n.*No module named 'dsrl'"),
        ({**FINE, "seen": False, "writable": False}, r"can't write into the store\n.*is not seen there"),
        ({**FINE, "writable": False}, r"is read-only there(.|\n)*shared file system"),
        ({**FINE, "versions": {**FINE["versions"], "vllm": None}}, "another vllm than this one"),
    ],
)
def test_a_node_that_cannot_do_its_part_is_told_by_its_name(said: dict[str, Any], words: str) -> None:
    job = Verl(algorithm=Grpo(), gpus=0, cluster=LocalRay())._supposed()
    nodes.refuse("a", FINE, FINE, job, setup(0))
    with pytest.raises(UserError, match=words):
        nodes.refuse("b", said, FINE, job, setup(0))


def test_a_node_says_what_it_sees(tmp_path: Path) -> None:
    said = nodes.look(str(tmp_path), 0)
    assert (said["seen"], said["writable"], said["gpus"]) == (True, True, 0)
    assert said["versions"]["dsrl"]
    assert not nodes.look(str(tmp_path / "no"), 0)["seen"]


ENDS = [
    ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB.", "on a GPU", "Tried to allocate 20.00"),
    (
        "\x1b[36m(WorkerDict pid=7)\x1b[0m RuntimeError: DefaultCPUAllocator: can't allocate memory",
        "main memory",
        "Def",
    ),
    ("ValueError: No available memory for the cache blocks. Try increasing", "raise train.gpu_memory", "cache blocks"),
    ("OSError: [Errno 28] No space left on device", "shm is full", "Errno 28"),
    ("ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing", "killed from outside", "The actor"),
    ("The node 10.0.0.2 where it ran died", "a node of the Ray went away", "10.0.0.2"),
]


@pytest.mark.parametrize(("text", "words", "line"), ENDS)
def test_an_end_is_told_with_its_cure_and_its_own_words(text: str, words: str, line: str) -> None:
    found = cause(f"before\n{text}\nafter")
    assert found is not None
    assert words in found.partition("\n")[0]
    assert found.partition("\n")[2].strip().startswith(line) or line in found.partition("\n")[2]


def test_an_error_of_another_kind_has_no_such_cause() -> None:
    assert cause("ValueError: loss is nan") is None
    assert want("ActorDiedError: others end so, too") is None
