"""The nodes of a Ray: whether each of them can take part in a training, and which workers ran where."""

import json
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Event, Thread
from typing import Any

from dsrl.core.errors import UserError
from dsrl.stages.train.job import WORKER_HOSTS, TrainingJob
from dsrl.stages.train.verl.resources import VerlResources

ANSWER_SECONDS = 120.0
SAME_VERSION = ("verl", "vllm", "torch", "ray", "dsrl")
"""Packages that must have the same version on all nodes."""
POLL_SECONDS = 2.0


def check_nodes(job: TrainingJob, resources: VerlResources, runtime_env: dict[str, Any]) -> None:
    """Every node that trains can write to the job's folder and has this node's packages. Raises `UserError`."""
    if resources.address.startswith("127."):  # this machine alone
        return
    import ray

    ray.init(resources.address, runtime_env=runtime_env, log_to_driver=False)
    try:
        training_nodes = [
            node for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU", 0) >= resources.per_node
        ]
        reports = {node["NodeManagerHostname"]: _ask_node(node, job, resources) for node in training_nodes}
    finally:
        ray.shutdown()
    here = inspect_node(job.folder, 0)
    for host, report in reports.items():
        check_node(host, report, here, job, resources)


def _ask_node(node: dict[str, Any], job: TrainingJob, resources: VerlResources) -> dict[str, Any]:
    """The result of `inspect_node` on a node, or its `error`."""
    import ray
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    task = ray.remote(num_cpus=0, scheduling_strategy=there, max_retries=0)(inspect_node)
    try:
        report: dict[str, Any] = ray.get(task.remote(job.folder, resources.gpus), timeout=ANSWER_SECONDS)
    except (RayError, GetTimeoutError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        return {"error": lines[-1].strip() if lines else type(error).__name__}
    return report


def inspect_node(folder: str, gpus: int) -> dict[str, Any]:
    """What this node has: access to `folder`, package versions, and, if `gpus` are needed, torch's number of GPUs."""
    num_gpus = 0
    if gpus:
        import torch

        num_gpus = int(torch.cuda.device_count())
    return {
        "seen": Path(folder).is_dir(),
        "writable": os.access(folder, os.W_OK),
        "versions": {name: installed_version(name) for name in SAME_VERSION},
        "gpus": num_gpus,
    }


def installed_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def check_node(
    host: str, report: dict[str, Any], here: dict[str, Any], job: TrainingJob, resources: VerlResources
) -> None:
    """Raise `UserError` for a node that can't take part. `here` is the report of this node."""
    if "error" in report:
        raise UserError(
            f"node {host} can't run the trainer",
            got=report["error"],
            next_step="install dsrl and veRL there as here, or give cluster.runtime_env",
        )
    if not (report["seen"] and report["writable"]):
        raise UserError(
            f"node {host} can't write to the store",
            got=f"{job.folder} {'is read-only' if report['seen'] else 'does not exist'} there",
            allowed="a folder that all nodes share and may write to",
            next_step="store=FOLDER on a shared file system; touch a file there from that node",
        )
    different = [name for name in SAME_VERSION if report["versions"][name] != here["versions"][name]]
    if different:
        raise UserError(
            f"node {host} has another version of {different[0]} than this node",
            got=report["versions"][different[0]],
            allowed=here["versions"][different[0]],
            next_step="use the same environment on all nodes",
        )
    if report["gpus"] < resources.gpus:
        raise UserError(
            f"node {host} has fewer GPUs than requested",
            got=f"torch sees {report['gpus']} there",
            allowed=f"train.gpus={resources.gpus}",
            next_step="lower train.gpus, or check CUDA_VISIBLE_DEVICES and the build of torch there",
        )


class WorkerHostLog:
    """Writes `workers.json`, which host runs which of veRL's workers, while a training runs."""

    def __init__(self, job: TrainingJob) -> None:
        self.path = job.path(WORKER_HOSTS)
        self._actors: dict[str, tuple[str, str]] = {}
        self._stop = Event()
        self._thread = Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "WorkerHostLog":
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join(POLL_SECONDS)

    def _follow(self) -> None:
        import ray

        while not self._stop.wait(POLL_SECONDS):
            if ray.is_initialized():
                self._update()

    def _update(self) -> None:
        from ray._private import state

        hosts = {node["NodeID"]: node["NodeManagerHostname"] for node in state.nodes()}
        before = len(self._actors)
        for key, actor in state.actors().items():
            if host := hosts.get(actor["Address"]["NodeID"]):
                self._actors[key] = (host, actor["ActorClassName"])
        if len(self._actors) > before:
            workers = {
                host: sorted(name for where, name in self._actors.values() if where == host) for host in hosts.values()
            }
            self.path.write_text(json.dumps(workers, indent=1), encoding="utf-8")
