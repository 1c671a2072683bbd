"""RL with TRL's GRPO trainer: one GPU, or the CPU for tiny models."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dsrl.core import child_process
from dsrl.core.component import component
from dsrl.infra.gpus import visible_gpus
from dsrl.stages.train.algorithms import DrGrpo, Grpo
from dsrl.stages.train.job import TrainingJob, TrainingRow
from dsrl.stages.train.memory import TrainingShape, describe_memory, estimate_memory, read_shape, update_warnings
from dsrl.stages.train.rl import ReinforcementLearning
from dsrl.stages.train.rows import device_batch_size

if TYPE_CHECKING:
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState

ASSUMED_PROMPT_TOKENS = 512

LOSSES: dict[str, dict[str, str]] = {
    Grpo.label: {"loss_type": "grpo", "scale_rewards": "group"},
    DrGrpo.label: {"loss_type": "dr_grpo", "scale_rewards": "none"},
}
"""Algorithm -> arguments of TRL's `GRPOConfig`."""


@component("stages.train.trl")
class Trl(ReinforcementLearning):
    """RL in a single process."""

    module: ClassVar[str] = "dsrl.stages.train.trl_worker"
    engine: ClassVar[str] = "trl"
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers", "accelerate", "datasets", "trl")

    lora_rank: int | None = Field(default=None, gt=0, le=512)
    """Rank of LoRA adapters, which are merged into the weights at the end; None: train all weights."""
    lora_alpha: int = Field(default=32, gt=0)
    """The adapters are scaled by lora_alpha / lora_rank."""

    def check(self) -> None:
        """Adapters need peft."""
        super().check()
        if self.lora_rank is not None:
            child_process.require("peft")

    def settings(self) -> dict[str, Any]:
        adapters = {"lora_rank": self.lora_rank, "lora_alpha": self.lora_alpha} if self.lora_rank else {}
        return {**super().settings(), **LOSSES[self.label], **adapters}

    def predict(
        self, state: "PipelineState", rows: Sequence[TrainingRow], job: TrainingJob, context: "Context"
    ) -> dict[str, Any]:
        """The reward variance, and the memory of an update on a GPU."""
        predicted = super().predict(state, rows, job, context)
        gpus, model = visible_gpus(), read_shape(Path(job.model.path or ""), job.model.parameters)
        if not gpus.names or model is None:
            return {**predicted, "memory": None}
        parts = estimate_memory(model, self.memory_shape(job))
        context.progress.say(f"memory: {describe_memory(parts)}")
        for text in update_warnings(parts, gpus.gibibytes, ", or give rl.kl=0"):
            context.progress.warn(f"train: {text}")
        return {**predicted, "memory": {name: round(value, 2) for name, value in parts.items()}}

    def memory_shape(self, job: TrainingJob) -> TrainingShape:
        """What TRL holds in memory during an update."""
        rl = self.algorithm
        lora = self.lora_rank is not None  # with the adapters disabled, the model is its own reference
        return TrainingShape(
            gpus=1,
            sequences=device_batch_size(job.device_batch, rl.prompts_per_step * rl.responses_per_prompt),
            tokens=min(ASSUMED_PROMPT_TOKENS + rl.max_response_tokens, job.model.max_length),
            adapters=lora,
            reference=rl.kl > 0 and not lora,
            whole_logits=False,
        )
