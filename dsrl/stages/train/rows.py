"""Which samples are trained on, in which order, and which are held out to choose a checkpoint."""

import random
from typing import TYPE_CHECKING, Literal

from dsrl.core.digest import digest
from dsrl.core.errors import StageFailed, UserError
from dsrl.data.images import prompt_text
from dsrl.data.labelled import draw_worked_examples
from dsrl.data.sample import Sample
from dsrl.data.source import Source
from dsrl.data.task import Task
from dsrl.stages.train.job import TrainingRow

if TYPE_CHECKING:
    from dsrl.pipeline.state import PipelineState

TrainOn = Literal["selected", "control", "gold"]


def training_rows(state: "PipelineState", train_on: TrainOn, gold: Source | None, seed: int) -> tuple[TrainingRow, ...]:
    """The selected samples, the random control set, or the same number of gold-labelled ones (all, if there are fewer).
    Raises `StageFailed` if there are none."""
    if train_on == "gold":
        assert gold is not None, "checked before the run"
        return gold_rows(state.task, gold, len(state.selected), seed)
    samples = state.chosen(state.selected if train_on == "selected" else state.control)
    if not samples:
        raise StageFailed("there are no samples to train on", got=f"{train_on}: 0", next_step="see the stage `select`")
    return tuple(sample_row(state.task, sample) for sample in samples)


def sample_row(task: Task, sample: Sample) -> TrainingRow:
    """The row of a synthetic sample, with the prompt of every other stage."""
    return TrainingRow(
        id=sample.id,
        prompt=prompt_text(task.prompt(sample.input, sample.images)),
        images=tuple(image.path for image in sample.images),
        answer=sample.answer,
        solution=sample.solution,
        origin=sample.origin,
        parent=sample.parent_id,
        passage=sample.provenance.passage,
        pass_rate=sample.score.value if sample.score else None,
    )


def gold_rows(task: Task, gold: Source, count: int, seed: int) -> tuple[TrainingRow, ...]:
    """A seeded draw of `count` labelled rows."""
    return tuple(
        TrainingRow(
            id=digest(item.input),
            prompt=prompt_text(task.prompt(item.input)),
            answer=item.answer,
            solution=item.solution,
        )
        for item in draw_worked_examples(gold, task.answer, count, seed)
    )


def validation_rows(state: "PipelineState", count: int, seed: int) -> tuple[TrainingRow, ...]:
    """A seeded draw of samples with a pass rate between 0 and 1 (any, if none was scored) that are neither selected nor
    in the control set."""
    taken = {*state.selected, *state.control}
    free = sorted((sample for sample in state.samples if sample.id not in taken), key=lambda sample: sample.id)
    unscored = all(sample.score is None for sample in state.samples)
    learnable = [sample for sample in free if unscored or _has_signal(sample)]
    random.Random(digest([seed, "validation"])).shuffle(learnable)
    return tuple(sample_row(state.task, sample) for sample in learnable[:count])


def _has_signal(sample: Sample) -> bool:
    rate = sample.score.value if sample.score else None
    return rate is not None and 0 < rate < 1


def num_steps(num_rows: int, per_step: int, epochs: int, max_steps: int | None, field: str) -> int:
    """Number of updates; an incomplete last batch is dropped. Raises `UserError` if there are fewer rows than one
    update needs, naming the config `field` that sets the batch size."""
    if num_rows < per_step:
        raise UserError(
            "fewer samples to train on than one update needs",
            got=f"{num_rows} samples, {field}={per_step}",
            next_step=f"raise m (and n), or give {field}={max(1, num_rows)} or less",
        )
    return max_steps or num_rows * epochs // per_step


def training_order(num_rows: int, count: int, seed: int) -> tuple[int, ...]:
    """`count` row numbers: one shuffled epoch after another."""
    order: list[int] = []
    epoch = 0
    while len(order) < count:
        numbers = list(range(num_rows))
        random.Random(digest([seed, "epoch", epoch])).shuffle(numbers)
        order.extend(numbers)
        epoch += 1
    return tuple(order[:count])


def device_batch_size(limit: int | None, per_step: int) -> int:
    """The largest divisor of an update's rows that is not above `limit`."""
    return max(size for size in range(1, per_step + 1) if per_step % size == 0 and size <= (limit or per_step))
