"""RL with veRL: the stage, its dials and what can be checked before a run."""

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
from dsrl.infra.gpus import gpus_here
from dsrl.infra.ray.base import Cluster
from dsrl.stages.train import memory
from dsrl.stages.train.job import Job, Row
from dsrl.stages.train.rl import ReinforcementLearning
from dsrl.stages.train.verl.config import micro_batch, patch
from dsrl.stages.train.verl.config_schema import refuse
from dsrl.stages.train.verl.ray_resources import let_in, same_shards, settled, share_out
from dsrl.stages.train.verl.resources import Setup

if TYPE_CHECKING:
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState

PREFLIGHT_SECONDS = 300.0
SUPPOSED_STEPS, SUPPOSED_PROMPT = 100, 512
"""Of a training whose rows aren't there yet, for the look at its settings."""
AGREE = {"float32": 1e-4, "bfloat16": 2e-2}
"""Mean difference of a token's probability between rollout and trainer up to which they count as the same model."""


@component("stages.train.verl")
class Verl(ReinforcementLearning):
    """Reinforcement learning with veRL's trainer and vLLM rollouts, on the GPUs of all nodes of a Ray or, for tiny
    models, on their CPUs."""

    module: ClassVar[str] = "dsrl.stages.train.verl.worker"
    engine: ClassVar[str] = "verl"
    excluded_from_key: ClassVar[frozenset[str]] = frozenset(
        (
            *ReinforcementLearning.excluded_from_key,
            "cluster",
            "python",
            "gpus",
            "tensor_parallel",
            "gpu_memory",
            "offload",
            "workers",
        )
    )
    packages: ClassVar[tuple[str, ...]] = ()

    cluster: Cluster | None = None
    """Where its Ray comes from."""
    python: str | None = None
    """Interpreter of the environment that holds veRL; None: this one."""
    gpus: int | None = Field(default=None, ge=0)
    """On each node; None: all there are; 0: the CPU."""
    tensor_parallel: int = Field(default=1, gt=0)
    """GPUs that share one copy of the model for rollouts."""
    gpu_memory: float = Field(default=0.5, gt=0, lt=1)
    """Share of a GPU's memory that vLLM takes."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the arithmetic in updates and rollouts; `auto`: bfloat16 on GPUs, float32 on the CPU."""
    offload: bool = False
    """Keep weights and optimizer in main memory while replies are drawn."""
    lora_rank: int | None = Field(default=None, gt=0, le=512)
    """Of the adapters that are trained instead of all weights, and merged into them at the end; None: none."""
    lora_alpha: int = Field(default=32, gt=0)
    """Adapters count lora_alpha / lora_rank times."""
    workers: int | None = Field(default=None, gt=0)
    """Processes that hand out prompts, and as many that grade; None: 8 with GPUs, 1 without."""
    overrides: Many[str] = ()
    """veRL's own keys, as on its command line: `actor_rollout_ref.rollout.max_num_seqs=512`."""

    def check(self) -> None:
        """Pair, groups and keys here; packages and veRL's tree in the trainer's environment."""
        super().check()
        refuse(self.overrides)
        setup = self.setup()
        share_out(setup, self.algorithm)
        here = len(gpus_here().names)
        if setup.gpus > here and not self._elsewhere:
            raise UserError(
                "train.gpus: more than there are",
                got=setup.gpus,
                allowed=f"up to {here}",
                next_step="give train.gpus=0 to train a tiny model on the CPU",
            )
        if self.cluster is None:
            raise UserError("train.cluster is missing", next_step="take out train.cluster=null")
        self._preflight()

    @property
    def _elsewhere(self) -> bool:
        return self.cluster is not None and self.cluster.elsewhere

    def interpreter(self) -> str | None:
        """Raises `UserError` where there is no such program."""
        if self.python is None:
            return None
        found = shutil.which(os.path.expanduser(self.python))
        if found is None:
            raise UserError(
                "train.python: no such program",
                got=self.python,
                next_step="make verl, which makes .venv-verl/bin/python",
            )
        return os.path.abspath(found)  # not resolved: a link to it is what makes an environment

    def variables(self) -> dict[str, str]:
        count = self.setup().gpus
        return {"CUDA_VISIBLE_DEVICES": ",".join(gpus_here().names[:count])}

    @contextmanager
    def placed(self, job: Job, context: "Context") -> Iterator[tuple[Job, dict[str, str]]]:
        """On a Ray that is there as long as the training. Without GPUs each node declares one, in name, for veRL."""
        assert self.cluster is not None
        supposed = self.setup()
        cluster = self.cluster.declaring(supposed.cpus, supposed.per_node)
        with cluster.open(context.run_dir, self.interpreter() or sys.executable, context.progress.say) as ray:
            setup = settled(self.setup(), ray, named=self.gpus is not None)
            share_out(setup, self.algorithm)
            same_shards(job, setup)
            settings = {**job.settings, "engine": asdict(setup)}
            yield replace(job, settings=settings), {**self.variables(), **let_in(ray)}

    def setup(self) -> Setup:
        """With everything that was left open decided, as far as can be known before there is a Ray."""
        here = len(gpus_here().names)
        count = (max(1, here) if self._elsewhere else here) if self.gpus is None else self.gpus
        return Setup(
            nodes=self.cluster.num_nodes() if self.cluster else 1,
            gpus=count,
            tensor_parallel=self.tensor_parallel,
            gpu_memory=self.gpu_memory,
            dtype=self.dtype if self.dtype != "auto" else "bfloat16" if count else "float32",
            offload=self.offload,
            workers=self.workers or (8 if count else 1),
            overrides=self.overrides,
            lora_rank=self.lora_rank or 0,
            lora_alpha=self.lora_alpha if self.lora_rank else 0,
        )

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "engine": asdict(self.setup())}

    def foretell(self, state: "PipelineState", rows: Sequence[Row], job: Job, context: "Context") -> dict[str, Any]:
        """The pass rates, and the memory that a GPU will need."""
        found = super().foretell(state, rows, job, context)
        gpus, setup = gpus_here(), self.setup()
        model = memory.shapes(Path(job.model.path or ""), job.model.parameters)
        if not setup.gpus or model is None:
            return {**found, "memory": None}
        tokens = SUPPOSED_PROMPT + self.max_tokens()
        load = memory.Load(
            setup.gpus,
            micro_batch(job, setup),
            tokens,
            self.label == "ppo",
            setup.offload,
            adapters=setup.lora_rank > 0,
        )
        parts = memory.needed(model, load)
        context.progress.say(f"memory: {memory.words(parts)}")
        for text in memory.warnings(model, parts, gpus.gibibytes, setup.gpu_memory, setup.tensor_parallel):
            context.progress.warn(f"train: {text}")
        return {**found, "memory": {name: round(value, 2) for name, value in parts.items()}}

    def judge(self, course: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], list[str]]:
        """Whether vLLM drew with the weights that were trained."""
        figures, warned = super().judge(course)
        differences = [row["rollout_probs_diff_mean"] for row in course if "rollout_probs_diff_mean" in row]
        if not differences:
            return figures, warned
        worst, bound = max(differences), AGREE[self.setup().dtype]
        if worst > bound:
            warned.append(
                f"rollouts and training disagree: the probability of a token differs by {worst:.2g} on average, where "
                f"{bound:g} is usual for this dtype; see docs/training_verl.md"
            )
        mean = sum(differences) / len(differences)
        return {**figures, "rollout_probs_diff_mean": mean, "rollout_probs_diff_worst_step": worst}, warned

    def _preflight(self) -> None:
        """What veRL says of the settings before anything is paid for. Raises `UserError`."""
        supposed = self._supposed()
        asked = {
            "patch": patch(supposed, SUPPOSED_PROMPT, validates=self.validation > 0),
            "overrides": list(self.overrides),
            "whole": bool(self.overrides),
        }
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "asked.json"
            path.write_text(json.dumps(asked), encoding="utf-8")
            problem = _ask(child_process.command("dsrl.stages.train.verl.preflight", [str(path)], self.interpreter()))
        if problem:
            raise UserError(problem)

    def _supposed(self) -> Job:
        rl = self.algorithm
        return Job(
            folder="/supposed",
            model=Model(name="supposed", path="/supposed"),
            algorithm=self.label,
            settings=self.settings(),
            grader={},
            steps=rl.max_steps or SUPPOSED_STEPS,
            rows_per_step=rl.prompts_per_step,
            seed=self.seed,
            checkpoint_every=self.checkpoint_every or 1,
            validation=Sampling(temperature=self.validation_temperature, max_tokens=self.max_tokens()),
            validation_replies=self.validation_replies,
            keep=self.keep,
            device_batch=self.device_batch,
        )


def _ask(program: child_process.Program) -> str | None:
    """The problem that the preflight found. Raises `UserError` where it can't even run."""
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
    problem: str | None = json.loads(done.stdout.splitlines()[-1])["problem"]
    return problem
