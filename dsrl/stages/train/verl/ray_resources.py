"""What follows for a training from the Ray that is there."""

from dataclasses import replace
from pathlib import Path

from dsrl.core.errors import UserError
from dsrl.infra.ray.base import Ray
from dsrl.stages.train.algorithms import Algorithm
from dsrl.stages.train.job import Job
from dsrl.stages.train.verl.resources import Setup

AUTH = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")
"""What a program needs, beside the address, to be let into a Ray."""


def let_in(ray: Ray) -> dict[str, str]:
    """Variables of a program that joins it."""
    return {name: ray.environment[name] for name in AUTH if name in ray.environment}


def settled(supposed: Setup, ray: Ray, *, named: bool) -> Setup:
    """With the nodes and GPUs that this Ray has; `named`: the GPUs on each were asked for. Raises `UserError`."""
    least = supposed.per_node if named else 1
    fit = [count for count in ray.gpus_by_node if count >= least]
    if not fit:
        raise UserError(
            "train.gpus: no node of the Ray has so many" if supposed.gpus else "a Ray without GPUs must declare one",
            got=f"{', '.join(map(str, ray.gpus_by_node))} on its nodes",
            allowed=f"{least} or more",
            next_step="lower train.gpus, or train.gpus=0 for a tiny model" if supposed.gpus
            else "start each of its nodes with `ray start ... --num-gpus=1`: veRL looks for something of that name",
        )  # fmt: skip
    gpus = (supposed.gpus if named else min(fit)) if supposed.gpus else 0
    found = replace(supposed, gpus=gpus, nodes=len(fit), address=ray.address, runtime_env=ray.runtime_env)
    if ray.cpus < found.all_cpus:
        raise UserError(
            "the Ray has fewer CPUs than veRL's processes claim, and would wait for ever",
            got=f"{ray.cpus} on {ray.nodes} nodes",
            allowed=f"{found.all_cpus} or more, {found.cpus} on one node",
            next_step="take out cluster.cpus, or start that Ray with a larger --num-cpus: it is only a number",
        )
    return found


def same_shards(job: Job, setup: Setup) -> None:
    """A checkpoint is in as many pieces as there were processes. Raises `UserError`."""
    if job.resume is None:
        return
    pieces = [path.name.split("_")[3] for path in Path(job.resume).glob("actor/model_world_size_*_rank_0.pt")]
    if pieces and str(setup.devices) not in pieces:
        raise UserError(
            "the training was begun by another number of processes, and can go on only with that",
            got=f"{setup.nodes} nodes x {setup.per_node}",
            allowed=f"{pieces[0]} in all",
            next_step=f"give as many nodes and train.gpus as before; or remove {Path(job.resume).parent} to begin anew",
        )


def share_out(setup: Setup, rl: Algorithm) -> None:
    """The replies of an update among all devices. Raises `UserError`."""
    if setup.devices % setup.tensor_parallel:
        raise UserError(
            "train.tensor_parallel must divide the GPUs",
            got=setup.tensor_parallel,
            allowed=f"divisors of {setup.devices}",
        )
    replies = rl.prompts_per_step * rl.responses_per_prompt
    if replies % setup.devices:
        raise UserError(
            "the replies of an update must be shared out evenly among the GPUs",
            got=f"rl.prompts_per_step x rl.responses_per_prompt = {replies}, {setup.devices} GPUs",
            next_step=f"give numbers whose product {setup.devices} divides",
        )
