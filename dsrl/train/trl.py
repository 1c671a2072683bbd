"""RL with TRL's GRPO trainer: one GPU, or the CPU for tiny models."""

from dataclasses import asdict
from typing import Any, ClassVar

from pydantic import Field

from dsrl.errors import UserError
from dsrl.part import part
from dsrl.train.algorithms import Algorithm, DrGrpo, Grpo
from dsrl.train.job import Row
from dsrl.train.schedule import num_steps
from dsrl.train.stage import Training

LOSSES: dict[str, dict[str, str]] = {
    Grpo.label: {"loss_type": "grpo", "scale_rewards": "group"},
    DrGrpo.label: {"loss_type": "dr_grpo", "scale_rewards": "none"},
}
"""Our algorithm -> TRL's words for it."""


@part
class Trl(Training):
    """Reinforcement learning with the task's grader as the reward."""

    module: ClassVar[str] = "dsrl.train.trl_worker"
    engine: ClassVar[str] = "trl"
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers", "accelerate", "datasets", "trl")

    algorithm: Algorithm
    format_share: float = Field(default=0.1, ge=0, le=1)
    """Share f of the reward (1 - f) * correct + f * format_ok."""

    @property
    def label(self) -> str:
        return self.algorithm.label

    def check(self) -> None:
        """An algorithm that TRL runs, and groups to compare replies in."""
        super().check()
        if self.label not in LOSSES:
            raise UserError(
                f"train=trl can't run rl={self.label}", allowed=LOSSES, next_step="give one of these as rl="
            )
        if self.algorithm.responses_per_prompt < 2:
            raise UserError(
                f"rl={self.label} compares the replies to a question with one another",
                got=f"rl.responses_per_prompt={self.algorithm.responses_per_prompt}",
                allowed="2 or more",
                next_step="give rl.responses_per_prompt=8",
            )

    def usable(self, rows: tuple[Row, ...]) -> tuple[Row, ...]:
        return rows

    def plan(self, num_rows: int) -> tuple[int, int]:
        rl = self.algorithm
        knob = "rl.prompts_per_step"
        return num_steps(num_rows, rl.prompts_per_step, rl.epochs, rl.max_steps, knob), rl.prompts_per_step

    def settings(self) -> dict[str, Any]:
        return {**asdict(self.algorithm), **LOSSES[self.label], "format_share": self.format_share}

    def replies_per_row(self) -> int:
        return self.algorithm.responses_per_prompt

    def max_tokens(self) -> int:
        return self.algorithm.max_response_tokens
