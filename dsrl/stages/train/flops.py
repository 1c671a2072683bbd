"""How much arithmetic a training is, before it runs: 2 operations a parameter and token to read or draw it, 6 to learn
from it (a forward and a backward pass), and 2 for each further look at it."""

import math
from typing import TYPE_CHECKING

from dsrl.core.errors import UserError
from dsrl.core.estimate import Range
from dsrl.forecast.workload import Outlook

if TYPE_CHECKING:
    from dsrl.stages.train.base import Training

LEARNING = 6.0
DRAWING = 2.0
LOOKING = 2.0
"""By the policy before the update, by the base model where the loss holds the divergence from it, and by a critic."""


def training_flops(training: "Training", outlook: Outlook) -> Range | None:
    """Of all updates and validations; None where the size of the model is unknown."""
    sizes = [_sequences(training, outlook, round(rows)) for rows in outlook.selected.plain().values()]
    read, written = outlook.prompt_tokens(), outlook.rollout_tokens(training.max_tokens())
    learned = written if training.replies_per_row() else outlook.teacher_reply_tokens()
    update, check = outlook.forward(read, learned, _factor(training)), outlook.forward(read, written)
    if update is None or check is None:
        return None
    return Range(*(size[0] for size in sizes)) * update + Range(*(size[1] for size in sizes)) * check


def _sequences(training: "Training", outlook: Outlook, rows: int) -> tuple[float, float]:
    """Learned from in all updates; drawn for held-out samples."""
    try:
        steps, per_step = training.plan(rows)
    except UserError:  # too few rows for a single update: the training will say so itself
        return 0.0, 0.0
    every = training.checkpoint_every or math.ceil(steps / 10)
    held_out = min(training.validation, max(0.0, outlook.samples.expected - rows))
    return steps * per_step * max(
        1, training.replies_per_row()
    ), steps // every * held_out * training.validation_replies


def _factor(training: "Training") -> float:
    if not training.replies_per_row():
        return LEARNING
    settings = training.settings()
    reference = LOOKING if settings.get("kl") else 0.0
    critic = LOOKING + LEARNING if "critic_learning_rate" in settings else 0.0
    return DRAWING + LOOKING + LEARNING + reference + critic
