"""Forecast of a training's floating-point operations: 2 per parameter and token to read or draw it, 6 to learn from it
(forward and backward pass), and 2 for each further forward pass over it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from dsrl.core.errors import UserError
from dsrl.forecast.estimate import Range
from dsrl.forecast.workload import ForecastState

LEARNING = 6.0
SAMPLING = 2.0
FORWARD = 2.0
"""By the policy before the update, by the reference model if the loss has a KL term, and by a critic."""


@dataclass(frozen=True)
class TrainingPlan:
    """The numbers of a training that its cost depends on."""

    plan_steps: Callable[[int], tuple[int, int]]
    """Number of rows -> updates, and rows per update. Raises `UserError` for too few rows."""
    replies_per_row: int
    max_tokens: int
    checkpoint_every: int | None
    validation: int
    validation_replies: int
    kl: bool
    critic: bool


def training_flops(plan: TrainingPlan, before: ForecastState) -> Range | None:
    """All updates and validations; None if the size of the model is unknown."""
    counts = [_num_sequences(plan, before, round(rows)) for rows in before.selected.plain().values()]
    read, written = before.prompt_tokens(), before.rollout_tokens(plan.max_tokens)
    learned = written if plan.replies_per_row else before.teacher_reply_tokens()
    factor = LEARNING
    if plan.replies_per_row:
        factor += SAMPLING + FORWARD + FORWARD * plan.kl + (FORWARD + LEARNING) * plan.critic
    update, validation = before.flops(read, learned, factor), before.flops(read, written)
    if update is None or validation is None:
        return None
    return Range(*(count[0] for count in counts)) * update + Range(*(count[1] for count in counts)) * validation


def _num_sequences(plan: TrainingPlan, before: ForecastState, rows: int) -> tuple[float, float]:
    """Replies learned from in all updates, and replies drawn for all validations."""
    try:
        steps, per_step = plan.plan_steps(rows)
    except UserError:  # the training itself will report that there are too few rows
        return 0.0, 0.0
    every = plan.checkpoint_every or math.ceil(steps / 10)
    held_out = min(plan.validation, max(0.0, before.samples.expected - rows))
    return steps * per_step * max(1, plan.replies_per_row), steps // every * held_out * plan.validation_replies
