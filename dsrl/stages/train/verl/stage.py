"""RL with veRL: the stage, its fields, and what can be checked before a run."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from dsrl.core import child_process
from dsrl.core.component import Many, component
from dsrl.core.errors import UserError
from dsrl.data.model import Model, Sampling
from dsrl.infra.gpus import visible_gpus
from dsrl.infra.ray.base import Cluster
from dsrl.stages.train.job import TrainingJob, TrainingRow
from dsrl.stages.train.memory import TrainingShape, describe_memory, estimate_memory, read_shape, verl_warnings
from dsrl.stages.train.rl import ReinforcementLearning
from dsrl.stages.train.verl.config import micro_batch_size, verl_config
from dsrl.stages.train.verl.config_schema import check_overrides
from dsrl.stages.train.verl.resources import (
    VerlResources,
    auth_env,
    check_divisible,
    check_world_size,
    resolve_resources,
)

if TYPE_CHECKING:
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState

PREFLIGHT_SECONDS = 300.0
ASSUMED_STEPS, ASSUMED_PROMPT_TOKENS = 100, 512
"""Used in checks before the rows exist."""
MAX_PROBS_DIFF = {"float32": 1e-4, "bfloat16": 2e-2}
"""Mean difference of token probabilities between rollouts and trainer that rounding explains."""


@component("stages.train.verl")
class Verl(ReinforcementLearning):
    """RL with veRL's trainer and vLLM rollouts, on the GPUs of all nodes of a Ray, or on their CPUs for tiny models."""

    module: ClassVar[str] = "dsrl.stages.train.verl.worker"
    engine: ClassVar[str] = "verl"
    excluded_from_key: ClassVar[frozenset[str]] = ReinforcementLearning.excluded_from_key | {
        *("cluster", "python", "gpus", "tensor_parallel", "gpu_memory", "offload", "workers"),
    }
    packages: ClassVar[tuple[str, ...]] = ()

    cluster: Cluster | None = None
    """Where its Ray comes from."""
    python: str | None = None
    """Interpreter of the environment that has veRL; None: this one."""
    gpus: int | None = Field(default=None, ge=0)
    """On each node; None: all; 0: the CPU."""
    tensor_parallel: int = Field(default=1, gt=0)
    """GPUs that share one copy of the model in rollouts."""
    gpu_memory: float = Field(default=0.5, gt=0, lt=1)
    """vLLM's share of a GPU's memory."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Dtype of computations in updates and rollouts; `auto`: bfloat16 on GPUs, float32 on the CPU."""
    offload: bool = False
    """Whether to keep weights and optimizer state in main memory during rollouts."""
    lora_rank: int | None = Field(default=None, gt=0, le=512)
    """Rank of LoRA adapters, which are merged into the weights at the end; None: train all weights."""
    lora_alpha: int = Field(default=32, gt=0)
    """The adapters are scaled by lora_alpha / lora_rank."""
    workers: int | None = Field(default=None, gt=0)
    """Number of agent loop workers, and of grading workers; None: 8 with GPUs, 1 without."""
    overrides: Many[str] = ()
    """Overrides of veRL's config, as on its command line: `actor_rollout_ref.rollout.max_num_seqs=512`."""

    def check(self) -> None:
        """Algorithm, overrides and GPUs; then packages and veRL's config in the trainer's environment."""
        super().check()
        check_overrides(self.overrides)
        resources = self.resources()
        check_divisible(resources, self.algorithm)
        here = len(visible_gpus().names)
        if resources.gpus > here and not self._elsewhere:
            raise UserError(
                "train.gpus: more than this machine has",
                got=resources.gpus,
                allowed=f"up to {here}",
                next_step="give train.gpus=0 to train a tiny model on the CPU",
            )
        if self.cluster is None:
            raise UserError("train.cluster is missing", next_step="remove train.cluster=null")
        self._run_preflight()

    @property
    def _elsewhere(self) -> bool:
        return self.cluster is not None and self.cluster.elsewhere

    def interpreter(self) -> str | None:
        """Absolute path of `python`. Raises `UserError` if there is no such program."""
        if self.python is None:
            return None
        found = shutil.which(os.path.expanduser(self.python))
        if found is None:
            raise UserError(
                "train.python: no such program",
                got=self.python,
                next_step="run `make verl`, which creates .venv-verl/bin/python",
            )
        return os.path.abspath(found)  # not resolved: a virtual environment's python is a link

    @contextmanager
    def provision(self, job: TrainingJob, context: "Context") -> Iterator[tuple[TrainingJob, dict[str, str]]]:
        """Open a Ray for the training. On the CPU each of its nodes declares one GPU, which veRL requires."""
        assert self.cluster is not None
        planned = self.resources()
        visible = ",".join(visible_gpus().names[: planned.gpus])
        cluster = self.cluster.with_resources(planned.cpus, planned.per_node)
        with cluster.open(context.run_dir, self.interpreter() or sys.executable, context.progress.say) as ray:
            resources = resolve_resources(planned, ray, gpus_given=self.gpus is not None)
            check_divisible(resources, self.algorithm)
            check_world_size(job, resources)
            settings = {**job.settings, "engine": asdict(resources)}
            yield replace(job, settings=settings), {"CUDA_VISIBLE_DEVICES": visible, **auth_env(ray)}

    def resources(self) -> VerlResources:
        """The resources, as far as they are known before the Ray is open."""
        here = len(visible_gpus().names)
        gpus = (max(1, here) if self._elsewhere else here) if self.gpus is None else self.gpus
        return VerlResources(
            nodes=self.cluster.num_nodes() if self.cluster else 1,
            gpus=gpus,
            tensor_parallel=self.tensor_parallel,
            gpu_memory=self.gpu_memory,
            dtype=self.dtype if self.dtype != "auto" else "bfloat16" if gpus else "float32",
            offload=self.offload,
            workers=self.workers or (8 if gpus else 1),
            overrides=self.overrides,
            lora_rank=self.lora_rank or 0,
            lora_alpha=self.lora_alpha if self.lora_rank else 0,
        )

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "engine": asdict(self.resources())}

    def predict(
        self, state: "PipelineState", rows: Sequence[TrainingRow], job: TrainingJob, context: "Context"
    ) -> dict[str, Any]:
        """The reward variance, and the memory of an update on a GPU."""
        predicted = super().predict(state, rows, job, context)
        resources = self.resources()
        model = read_shape(Path(job.model.path or ""), job.model.parameters)
        if not resources.gpus or model is None:
            return {**predicted, "memory": None}
        shape = TrainingShape(
            gpus=resources.gpus,
            sequences=micro_batch_size(job, resources),
            tokens=ASSUMED_PROMPT_TOKENS + self.max_tokens(),
            critic=self.label == "ppo",
            offload=resources.offload,
            adapters=resources.lora_rank > 0,
        )
        parts = estimate_memory(model, shape)
        context.progress.say(f"memory: {describe_memory(parts)}")
        gibibytes = visible_gpus().gibibytes
        for text in verl_warnings(model, parts, gibibytes, resources.gpu_memory, resources.tensor_parallel):
            context.progress.warn(f"train: {text}")
        return {**predicted, "memory": {name: round(value, 2) for name, value in parts.items()}}

    def evaluate_progress(self, progress: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], list[str]]:
        """Warn if vLLM's token probabilities differ from the trainer's: then it sampled from other weights."""
        metrics, warnings = super().evaluate_progress(progress)
        differences = [row["rollout_probs_diff_mean"] for row in progress if "rollout_probs_diff_mean" in row]
        if not differences:
            return metrics, warnings
        worst, bound = max(differences), MAX_PROBS_DIFF[self.resources().dtype]
        if worst > bound:
            warnings.append(
                f"rollouts and trainer disagree: the probability of a token differs by {worst:.2g} on average, more "
                f"than the {bound:g} that are usual for this dtype; see docs/training_verl.md"
            )
        mean = sum(differences) / len(differences)
        return {**metrics, "rollout_probs_diff_mean": mean, "rollout_probs_diff_worst_step": worst}, warnings

    def _run_preflight(self) -> None:
        """Check the trainer's environment before anything is paid for. Raises `UserError`."""
        config = verl_config(self.assumed_job(), ASSUMED_PROMPT_TOKENS, validates=self.validation > 0)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "request.json"
            path.write_text(json.dumps({"config": config, "overrides": list(self.overrides)}), encoding="utf-8")
            program = child_process.command("dsrl.stages.train.verl.preflight", [str(path)], self.interpreter())
            done = subprocess.run(
                program.arguments,
                env=program.environment,
                capture_output=True,
                text=True,
                timeout=PREFLIGHT_SECONDS,
                check=False,
            )
        if done.returncode != 0:
            raise UserError(
                "the trainer's environment can't be used",
                got="\n".join(done.stderr.splitlines()[-3:]),
                next_step="install dsrl there as well: pip install --no-deps dsrl (see docs/training_verl.md)",
            )
        if problem := json.loads(done.stdout.splitlines()[-1])["problem"]:
            raise UserError(problem)

    def assumed_job(self) -> TrainingJob:
        """A job with these settings for checks before the run, with made-up paths and number of steps."""
        rl = self.algorithm
        return TrainingJob(
            folder="/assumed",
            model=Model(name="assumed", path="/assumed"),
            algorithm=self.label,
            settings=self.settings(),
            grader={},
            steps=rl.max_steps or ASSUMED_STEPS,
            rows_per_step=rl.prompts_per_step,
            seed=self.seed,
            checkpoint_every=self.checkpoint_every or 1,
            validation=Sampling(temperature=self.validation_temperature, max_tokens=self.max_tokens()),
            validation_replies=self.validation_replies,
            keep=self.keep,
            device_batch=self.device_batch,
        )
