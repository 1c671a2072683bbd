"""RL with TRL's GRPO trainer: one GPU, or the CPU for tiny models."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dsrl.core import child_process
from dsrl.core.component import component
from dsrl.infra.gpus import gpus_here
from dsrl.stages.train import memory
from dsrl.stages.train.algorithms import DrGrpo, Grpo
from dsrl.stages.train.job import Job, Row
from dsrl.stages.train.rl import ReinforcementLearning
from dsrl.stages.train.schedule import device_batch

if TYPE_CHECKING:
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState

SUPPOSED_PROMPT = 512
"""Tokens of a question, for the estimate of memory."""

LOSSES: dict[str, dict[str, str]] = {
    Grpo.label: {"loss_type": "grpo", "scale_rewards": "group"},
    DrGrpo.label: {"loss_type": "dr_grpo", "scale_rewards": "none"},
}
"""Our algorithm -> TRL's words for it."""


@component("stages.train.trl")
class Trl(ReinforcementLearning):
    """Reinforcement learning in one process of TRL's."""

    module: ClassVar[str] = "dsrl.stages.train.trl_worker"
    engine: ClassVar[str] = "trl"
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers", "accelerate", "datasets", "trl")

    lora_rank: int | None = Field(default=None, gt=0, le=512)
    """Of the adapters that are trained instead of all weights, and merged into them at the end; None: none."""
    lora_alpha: int = Field(default=32, gt=0)
    """Adapters count lora_alpha / lora_rank times."""

    def check(self) -> None:
        """Adapters need a package of their own."""
        super().check()
        if self.lora_rank is not None:
            child_process.require("peft")

    def settings(self) -> dict[str, Any]:
        adapters = {"lora_rank": self.lora_rank, "lora_alpha": self.lora_alpha} if self.lora_rank else {}
        return {**super().settings(), **LOSSES[self.label], **adapters}

    def foretell(self, state: "PipelineState", rows: Sequence[Row], job: Job, context: "Context") -> dict[str, Any]:
        """The pass rates, and the memory that the GPU will need."""
        found = super().foretell(state, rows, job, context)
        model = memory.shapes(Path(job.model.path or ""), job.model.parameters)
        if not gpus_here().names or model is None:
            return {**found, "memory": None}
        parts = memory.needed(model, self.load(job))
        context.progress.say(f"memory: {memory.words(parts)}")
        for text in memory.too_much(parts, gpus_here().gibibytes, ", or rl.kl=0"):
            context.progress.warn(f"train: {text}")
        return {**found, "memory": {name: round(value, 2) for name, value in parts.items()}}

    def load(self, job: Job) -> memory.Load:
        """What TRL holds at a time."""
        rl = self.algorithm
        sequences = device_batch(job.device_batch, rl.prompts_per_step * rl.responses_per_prompt)
        tokens = min(SUPPOSED_PROMPT + rl.max_response_tokens, job.model.max_length)
        lora = self.lora_rank is not None  # without its adapters the model is the base model
        return memory.Load(1, sequences, tokens, adapters=lora, reference=rl.kl > 0 and not lora, whole_logits=False)
