"""Where a training with veRL runs: GPUs, processes and memory, and what the given Ray allows."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from dsrl.core.component import Many, record
from dsrl.core.errors import UserError
from dsrl.infra.ray.base import RunningRay
from dsrl.stages.train.algorithms import Algorithm
from dsrl.stages.train.job import TrainingJob

Dtype = Literal["float32", "bfloat16"]
VERL_DTYPES: dict[str, str] = {"float32": "fp32", "bfloat16": "bf16"}
"""veRL's names of the training dtypes."""
TRAINING_VARIABLE = "DSRL_TRAINING"
"""Environment variable with a token that is unique to each training."""
CPUS_PER_DEVICE = 3
"""CPUs that veRL reserves in Ray for each training process."""
OTHER_CPUS, OTHER_CPUS_WITHOUT_GPU = 12, 5
"""CPUs that it reserves for its sample queue, the eight stores behind it (one without GPUs), and two helpers."""
AUTH_VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")


@record
class VerlResources:
    """The part of a job's settings that only veRL reads."""

    gpus: int
    """On each node; 0: train on the CPU."""
    tensor_parallel: int
    """GPUs that share one copy of the model in rollouts."""
    gpu_memory: float
    """vLLM's share of a GPU's memory."""
    dtype: Dtype
    """Dtype of computations in updates and in rollouts; weights and optimizer state are float32."""
    offload: bool
    """Whether weights and optimizer state are in main memory during rollouts."""
    workers: int
    """Number of agent loop workers, and of grading workers."""
    overrides: Many[str] = ()
    """The user's overrides of veRL's config."""
    lora_rank: int = 0
    """0: train all weights."""
    lora_alpha: int = 0
    """The adapters are scaled by lora_alpha / lora_rank."""
    nodes: int = 1
    """Nodes of the Ray that train."""
    address: str = ""
    """HOST:PORT of the Ray; empty before it has started."""
    runtime_env: dict[str, Any] = Field(default_factory=dict)
    """The user's runtime environment for Ray's workers."""

    @property
    def per_node(self) -> int:
        """Training processes on each node; a single one on the CPU."""
        return max(1, self.gpus)

    @property
    def devices(self) -> int:
        """Training processes on all nodes."""
        return self.nodes * self.per_node

    @property
    def cpus(self) -> int:
        """CPUs reserved on the node with the shared processes. Ray never starts, silently, what needs more."""
        return CPUS_PER_DEVICE * self.per_node + (OTHER_CPUS if self.gpus else OTHER_CPUS_WITHOUT_GPU)

    @property
    def all_cpus(self) -> int:
        """CPUs reserved on all nodes."""
        return self.cpus + CPUS_PER_DEVICE * self.per_node * (self.nodes - 1)


def auth_env(ray: RunningRay) -> dict[str, str]:
    """Variables that a process needs to connect to this Ray, apart from the address."""
    return {name: ray.environment[name] for name in AUTH_VARIABLES if name in ray.environment}


def resolve_resources(planned: VerlResources, ray: RunningRay, *, gpus_given: bool) -> VerlResources:
    """The resources with the nodes and GPUs of this Ray. `gpus_given`: the user asked for that many GPUs per node; else
    all nodes with a GPU take part. Raises `UserError` if the training can't start on this Ray."""
    least = planned.per_node if gpus_given else 1
    suitable = [count for count in ray.gpus_by_node if count >= least]
    if not suitable:
        on_cpu = not planned.gpus
        raise UserError(
            "a Ray without GPUs must declare one" if on_cpu else "train.gpus: no node of the Ray has that many",
            got=f"{', '.join(map(str, ray.gpus_by_node))} on its nodes",
            allowed=f"{least} or more",
            next_step="start each of its nodes with `ray start ... --num-gpus=1`: veRL reserves that resource by name"
            if on_cpu
            else "lower train.gpus, or give train.gpus=0 for a tiny model",
        )
    gpus = (planned.gpus if gpus_given else min(suitable)) if planned.gpus else 0
    resources = replace(planned, gpus=gpus, nodes=len(suitable), address=ray.address, runtime_env=ray.runtime_env)
    if ray.cpus < resources.all_cpus:
        raise UserError(
            "the Ray has fewer CPUs than veRL's processes reserve, so they would wait for ever",
            got=f"{ray.cpus} on {ray.nodes} nodes",
            allowed=f"{resources.all_cpus} or more, {resources.cpus} on one node",
            next_step="remove cluster.cpus, or start that Ray with a larger --num-cpus: the number need not be true",
        )
    return resources


def check_world_size(job: TrainingJob, resources: VerlResources) -> None:
    """Raise `UserError` if the checkpoint to resume from has another number of shards than there are processes."""
    if job.resume is None:
        return
    sizes = [path.name.split("_")[3] for path in Path(job.resume).glob("actor/model_world_size_*_rank_0.pt")]
    if sizes and str(resources.devices) not in sizes:
        raise UserError(
            "the training can only be resumed with the number of processes that it began with",
            got=f"{resources.nodes} nodes x {resources.per_node}",
            allowed=f"{sizes[0]} in all",
            next_step=f"use as many nodes and train.gpus as before, or delete {Path(job.resume).parent} to start again",
        )


def check_divisible(resources: VerlResources, rl: Algorithm) -> None:
    """Raise `UserError` if an update's replies can't be split evenly over the devices."""
    if resources.devices % resources.tensor_parallel:
        raise UserError(
            "train.tensor_parallel must divide the number of GPUs",
            got=resources.tensor_parallel,
            allowed=f"divisors of {resources.devices}",
        )
    replies = rl.prompts_per_step * rl.responses_per_prompt
    if replies % resources.devices:
        raise UserError(
            "the replies of an update must be divisible by the number of GPUs",
            got=f"rl.prompts_per_step x rl.responses_per_prompt = {replies}, {resources.devices} GPUs",
            next_step=f"give numbers whose product is a multiple of {resources.devices}",
        )
