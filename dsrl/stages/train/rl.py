"""What all engines of reinforcement learning share: the algorithm, and the task's grader as the reward."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dsrl.core.component import component
from dsrl.core.errors import UserError
from dsrl.stages.train.algorithms import Algorithm
from dsrl.stages.train.base import Training
from dsrl.stages.train.job import Job, Row
from dsrl.stages.train.readiness import readiness, warning, words
from dsrl.stages.train.schedule import num_steps

if TYPE_CHECKING:
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState

ENGINES: dict[str, tuple[str, ...]] = {
    "trl": ("grpo", "dr_grpo"),
    "verl": ("grpo", "dr_grpo", "ppo", "rloo", "reinforce_plus_plus", "remax", "dapo", "gspo"),
}
"""`train=` -> the `rl=` that it runs."""


def pairs() -> str:
    """The table of possible pairs, in a line."""
    return "; ".join(f"train={engine} with rl={', '.join(names)}" for engine, names in ENGINES.items())


@component(None)
class ReinforcementLearning(Training):
    """Reinforcement learning with the task's grader as the reward."""

    algorithm: Algorithm
    format_share: float = Field(default=0.1, ge=0, le=1)
    """Share f of the reward (1 - f) * correct + f * format_ok."""

    freeze_vision: bool = False
    """Of a model that reads pictures: leave the part that does as it is. SynthRL trains it."""

    engine: ClassVar[str]
    accepts_images: ClassVar[bool] = True

    @property
    def label(self) -> str:
        return self.algorithm.label

    def check(self) -> None:
        """An algorithm that this engine runs, and groups to compare replies in."""
        if self.label not in ENGINES[self.engine]:
            raise UserError(
                f"train={self.engine} can't run rl={self.label}",
                allowed=pairs(),
                next_step=f"give rl={ENGINES[self.engine][0]}, or another train=",
            )
        if self.algorithm.responses_per_prompt < self.algorithm.least_replies:
            raise UserError(
                f"rl={self.label} compares the replies to a question with one another",
                got=f"rl.responses_per_prompt={self.algorithm.responses_per_prompt}",
                allowed=f"{self.algorithm.least_replies} or more",
                next_step="give rl.responses_per_prompt=8",
            )
        super().check()

    def foretell(self, state: "PipelineState", rows: Sequence[Row], job: Job, context: "Context") -> dict[str, Any]:  # noqa: ARG002
        """What the pass rates say of the groups to come. A training that would starve is warned of, not refused."""
        rl = self.algorithm
        rates = {sample.id: sample.score for sample in state.samples}
        known = [rate for row in rows if (rate := rates.get(row.id)) is not None]
        counts = [(rate.num_correct, rate.num_valid) for rate in known]
        found = readiness(counts, rl.responses_per_prompt, rl.prompts_per_step)
        if found is None:
            return {"readiness": None}
        context.progress.say(words(found, self.label))
        if text := warning(found, self.label, compares=rl.least_replies > 1):
            context.progress.warn(f"train: {text}")
        return {"readiness": found.plain()}

    def usable(self, rows: tuple[Row, ...]) -> tuple[Row, ...]:
        return rows

    def plan(self, num_rows: int) -> tuple[int, int]:
        rl = self.algorithm
        knob = "rl.prompts_per_step"
        return num_steps(num_rows, rl.prompts_per_step, rl.epochs, rl.max_steps, knob), rl.prompts_per_step

    def settings(self) -> dict[str, Any]:
        return {**asdict(self.algorithm), "format_share": self.format_share, "freeze_vision": self.freeze_vision}

    def replies_per_row(self) -> int:
        return self.algorithm.responses_per_prompt

    def max_tokens(self) -> int:
        return self.algorithm.max_response_tokens
