"""Which samples are trained on, and which are held out to choose a checkpoint."""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from dsrl.core.digest import digest
from dsrl.core.errors import StageFailed
from dsrl.data.images import prompt_text
from dsrl.data.labelled import draw_worked_examples
from dsrl.data.sample import Sample
from dsrl.data.source import Source
from dsrl.data.task import Task
from dsrl.stages.train.job import Row

if TYPE_CHECKING:
    from dsrl.pipeline.state import PipelineState

TrainOn = Literal["selected", "control", "gold"]


def training_rows(state: "PipelineState", train_on: TrainOn, gold: Source | None, seed: int) -> tuple[Row, ...]:
    """The selected samples, the random control set, or as many gold-labelled ones (all, if there are fewer)."""
    if train_on == "gold":
        assert gold is not None, "checked before the run"
        return gold_rows(state.task, gold, len(state.selected), seed)
    samples = state.chosen(state.selected if train_on == "selected" else state.control)
    if not samples:
        raise StageFailed("there are no samples to train on", got=f"{train_on}: 0", next_step="see the stage `select`")
    return tuple(sample_row(state.task, sample) for sample in samples)


def sample_row(task: Task, sample: Sample) -> Row:
    """A synthetic sample as it is put to a model."""
    return Row(
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


def gold_rows(task: Task, gold: Source, count: int, seed: int) -> tuple[Row, ...]:
    """A seeded draw of labelled data."""
    return tuple(
        Row(
            id=digest(item.input),
            prompt=prompt_text(task.prompt(item.input)),
            answer=item.answer,
            solution=item.solution,
        )
        for item in draw_worked_examples(gold, task.answer, count, seed)
    )


def validation_rows(state: "PipelineState", count: int, seed: int) -> tuple[Row, ...]:
    """Samples that can be learned from but were neither selected nor drawn for control; where none was scored, any."""
    taken = {*state.selected, *state.control}
    free = sorted((sample for sample in state.samples if sample.id not in taken), key=lambda sample: sample.id)
    unscored = all(sample.score is None for sample in state.samples)
    learnable = [sample for sample in free if unscored or _learnable(sample)]
    random.Random(digest([seed, "validation"])).shuffle(learnable)
    return tuple(sample_row(state.task, sample) for sample in learnable[:count])


def _learnable(sample: Sample) -> bool:
    rate = sample.score.value if sample.score else None
    return rate is not None and 0 < rate < 1


def with_solution(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Those that supervised training can use."""
    return tuple(row for row in rows if row.solution)
