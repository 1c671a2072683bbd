"""The nodes of a Ray: whether each can do its part before a training starts, and what ran where."""

import json
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Event, Thread
from typing import Any

from dsrl.core.errors import UserError
from dsrl.stages.train.job import WORKERS, Job
from dsrl.stages.train.verl.resources import Setup

ANSWER_SECONDS = 120.0
SAME = ("verl", "vllm", "torch", "ray", "dsrl")
"""Packages of which all nodes must have the same version."""
LOOK_SECONDS = 2.0


def check(job: Job, setup: Setup, runtime_env: dict[str, Any]) -> None:
    """Every node sees the job's folder, may write there and has our packages. Raises `UserError`."""
    if setup.address.startswith("127."):  # this machine alone
        return
    import ray

    ray.init(setup.address, runtime_env=runtime_env, log_to_driver=False)
    try:
        answers = {node["NodeManagerHostname"]: _asked(node, job, setup) for node in training_nodes(setup)}
    finally:
        ray.shutdown()
    ours = look(job.folder, 0)
    for host, said in answers.items():
        refuse(host, said, ours, job, setup)


def training_nodes(setup: Setup) -> list[dict[str, Any]]:
    """Those alive that have what a share of the training needs."""
    import ray

    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU", 0) >= setup.per_node]


def _asked(node: dict[str, Any], job: Job, setup: Setup) -> dict[str, Any]:
    import ray
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    answer = ray.remote(num_cpus=0, scheduling_strategy=there, max_retries=0)(look).remote(job.folder, setup.gpus)
    try:
        said: dict[str, Any] = ray.get(answer, timeout=ANSWER_SECONDS)
    except (RayError, GetTimeoutError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        return {"error": lines[-1].strip() if lines else type(error).__name__}
    return said


def look(folder: str, gpus: int) -> dict[str, Any]:
    """On a node: what it has and sees."""
    return {
        "seen": Path(folder).is_dir(),
        "writable": os.access(folder, os.W_OK),
        "versions": {name: _version(name) for name in SAME},
        "gpus": _num_gpus() if gpus else 0,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _num_gpus() -> int:
    import torch

    return int(torch.cuda.device_count())


def refuse(host: str, said: dict[str, Any], ours: dict[str, Any], job: Job, setup: Setup) -> None:
    """Raises `UserError` for a node that can't do its part."""
    if "error" in said:
        raise UserError(
            f"node {host} can't run the trainer",
            got=said["error"],
            next_step="dsrl and veRL must be installed there, as here; or give cluster.runtime_env",
        )
    if not (said["seen"] and said["writable"]):
        raise UserError(
            f"node {host} can't write into the store",
            got=f"{job.folder} {'is read-only' if said['seen'] else 'is not seen'} there",
            allowed="a folder that all nodes share and may write to",
            next_step="store=FOLDER on a shared file system; touch a file there from that node",
        )
    other = [name for name in SAME if said["versions"][name] != ours["versions"][name]]
    if other:
        raise UserError(
            f"node {host} has another {other[0]} than this one",
            got=said["versions"][other[0]],
            allowed=ours["versions"][other[0]],
            next_step="the same environment on all nodes",
        )
    if said["gpus"] < setup.gpus:
        raise UserError(
            f"node {host}: fewer GPUs than asked for",
            got=f"{said['gpus']} are seen by torch there",
            allowed=f"train.gpus={setup.gpus}",
            next_step="lower train.gpus, or look at CUDA_VISIBLE_DEVICES and the build of torch there",
        )


class Whereabouts:
    """Writes down, while a training runs, which of veRL's workers was on which host."""

    def __init__(self, job: Job) -> None:
        self.path = job.path(WORKERS)
        self._seen: dict[str, tuple[str, str]] = {}
        self._over = Event()
        self._thread = Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Whereabouts":
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join(LOOK_SECONDS)

    def _follow(self) -> None:
        import ray

        while not self._over.wait(LOOK_SECONDS):
            if ray.is_initialized():
                self._look()

    def _look(self) -> None:
        from ray._private import state

        hosts = {node["NodeID"]: node["NodeManagerHostname"] for node in state.nodes()}
        before = len(self._seen)
        for key, actor in state.actors().items():
            if host := hosts.get(actor["Address"]["NodeID"]):
                self._seen[key] = (host, actor["ActorClassName"])
        if len(self._seen) > before:
            found = {
                host: sorted(name for where, name in self._seen.values() if where == host) for host in hosts.values()
            }
            self.path.write_text(json.dumps(found, indent=1), encoding="utf-8")
