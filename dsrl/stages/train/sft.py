"""Supervised fine-tuning on the teacher's solutions: the baseline to RL on the same samples."""

from typing import Any, ClassVar

from pydantic import Field

from dsrl.core.component import component
from dsrl.core.errors import StageFailed
from dsrl.stages.train.base import Training
from dsrl.stages.train.job import Row
from dsrl.stages.train.rows import with_solution
from dsrl.stages.train.schedule import num_steps


@component("stages.train.sft")
class Sft(Training):
    """Next-token loss on the solution, none on the prompt; linear decay of the learning rate."""

    module: ClassVar[str] = "dsrl.stages.train.sft_worker"
    engine: ClassVar[str] = "transformers"
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers", "accelerate")

    learning_rate: float = Field(default=2e-5, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    batch: int = Field(default=64, gt=0)
    """Samples in one update."""
    epochs: int = Field(default=3, gt=0)
    max_steps: int | None = Field(default=None, gt=0)
    """Takes the place of `epochs`: so many updates."""
    warmup_steps: int = Field(default=0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_response_tokens: int = Field(default=1024, gt=0)
    """Longest reply to held-out samples."""

    @property
    def label(self) -> str:
        return "sft"

    def usable(self, rows: tuple[Row, ...]) -> tuple[Row, ...]:
        """Those with a solution. Raises `StageFailed` where none has one."""
        found = with_solution(rows)
        if not found:
            raise StageFailed(
                "none of the samples has a solution to learn from",
                got=f"0 of {len(rows)} (train.train_on={self.train_on})",
                next_step="use train=trl, or data whose answers follow the task's output format",
            )
        return found

    def plan(self, num_rows: int) -> tuple[int, int]:
        return num_steps(num_rows, self.batch, self.epochs, self.max_steps, "train.batch"), self.batch

    def settings(self) -> dict[str, Any]:
        names = ("learning_rate", "weight_decay", "batch", "warmup_steps", "max_grad_norm")
        return {name: getattr(self, name) for name in names}

    def replies_per_row(self) -> int:
        return 0

    def max_tokens(self) -> int:
        return self.max_response_tokens
