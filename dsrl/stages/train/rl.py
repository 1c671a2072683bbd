"""Reinforcement learning with the task's grader as the reward: what the engines share."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dsrl.core.component import component
from dsrl.core.errors import UserError
from dsrl.stages.train.algorithms import Algorithm
from dsrl.stages.train.base import Training
from dsrl.stages.train.job import TrainingJob, TrainingRow
from dsrl.stages.train.readiness import describe_readiness, predict_readiness, readiness_warning
from dsrl.stages.train.rows import num_steps

if TYPE_CHECKING:
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState

ENGINES: dict[str, tuple[str, ...]] = {
    "trl": ("grpo", "dr_grpo"),
    "verl": ("grpo", "dr_grpo", "ppo", "rloo", "reinforce_plus_plus", "remax", "dapo", "gspo"),
}
"""Engine (`train=`) -> the algorithms (`rl=`) that it runs."""


@component(None)
class ReinforcementLearning(Training):
    """RL on the selected samples; the reward is (1 - f) * correct + f * format_ok."""

    algorithm: Algorithm
    format_share: float = Field(default=0.1, ge=0, le=1)
    """The share f of the output format in the reward."""

    freeze_vision: bool = False
    """Whether to freeze the vision tower of a vision-language model. SynthRL trains it."""

    engine: ClassVar[str]
    accepts_images: ClassVar[bool] = True

    @property
    def label(self) -> str:
        return self.algorithm.label

    def check(self) -> None:
        """The engine runs this algorithm, and groups are large enough for it."""
        if self.label not in ENGINES[self.engine]:
            raise UserError(
                f"train={self.engine} can't run rl={self.label}",
                allowed="; ".join(f"train={engine} with rl={', '.join(names)}" for engine, names in ENGINES.items()),
                next_step=f"give rl={ENGINES[self.engine][0]}, or another train=",
            )
        if self.algorithm.responses_per_prompt < self.algorithm.min_responses:
            raise UserError(
                f"rl={self.label} compares the replies to a question with one another",
                got=f"rl.responses_per_prompt={self.algorithm.responses_per_prompt}",
                allowed=f"{self.algorithm.min_responses} or more",
                next_step="give rl.responses_per_prompt=8",
            )
        super().check()

    def predict(
        self,
        state: "PipelineState",
        rows: Sequence[TrainingRow],
        job: TrainingJob,  # noqa: ARG002
        context: "Context",
    ) -> dict[str, Any]:
        """The reward variance to be expected from the pass rates. A bad prospect is a warning, not an error."""
        rl = self.algorithm
        rates = {sample.id: sample.score for sample in state.samples}
        counts = [(rate.num_correct, rate.num_valid) for row in rows if (rate := rates.get(row.id)) is not None]
        readiness = predict_readiness(counts, rl.responses_per_prompt, rl.prompts_per_step)
        if readiness is None:
            return {"readiness": None}
        context.progress.say(describe_readiness(readiness, self.label))
        if text := readiness_warning(readiness, self.label, compares=rl.min_responses > 1):
            context.progress.warn(f"train: {text}")
        return {"readiness": readiness.plain()}

    def plan_steps(self, num_rows: int) -> tuple[int, int]:
        rl = self.algorithm
        steps = num_steps(num_rows, rl.prompts_per_step, rl.epochs, rl.max_steps, "rl.prompts_per_step")
        return steps, rl.prompts_per_step

    def settings(self) -> dict[str, Any]:
        return {**asdict(self.algorithm), "format_share": self.format_share, "freeze_vision": self.freeze_vision}

    def replies_per_row(self) -> int:
        return self.algorithm.responses_per_prompt

    def max_tokens(self) -> int:
        return self.algorithm.max_response_tokens
