"""RL with TRL's GRPO trainer: one GPU, or the CPU for tiny models."""

from typing import Any, ClassVar

from dsrl.part import part
from dsrl.train.algorithms import DrGrpo, Grpo
from dsrl.train.reinforcement import Reinforcement

LOSSES: dict[str, dict[str, str]] = {
    Grpo.label: {"loss_type": "grpo", "scale_rewards": "group"},
    DrGrpo.label: {"loss_type": "dr_grpo", "scale_rewards": "none"},
}
"""Our algorithm -> TRL's words for it."""


@part
class Trl(Reinforcement):
    """Reinforcement learning in one process of TRL's."""

    module: ClassVar[str] = "dsrl.train.trl_worker"
    engine: ClassVar[str] = "trl"
    pictures: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers", "accelerate", "datasets", "trl")

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), **LOSSES[self.label]}
