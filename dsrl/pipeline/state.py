"""The pipeline state: what every stage receives and returns."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsrl.data.evaluation import Evaluation
from dsrl.data.model import Model
from dsrl.data.sample import Passage, Rejected, Sample
from dsrl.data.task import Task


@dataclass(frozen=True)
class PipelineState:
    """Results so far. Immutable: stages return a copy with more in it."""

    task: Task
    base: Model | None = None
    """The base model; in later rounds, the model trained in the round before."""
    keywords: tuple[str, ...] = ()
    passages: tuple[Passage, ...] = ()
    samples: tuple[Sample, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    """Candidates rejected by any stage."""
    selected: tuple[str, ...] = ()
    """Ids of the samples to train on, in order of selection."""
    control: tuple[str, ...] = ()
    """Ids of a random set of the same size, for comparison."""
    trained: Model | None = None
    evaluation_base: Evaluation | None = None
    evaluation_trained: Evaluation | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    """Metrics of the latest stage, for `metrics.json` and the report; JSON-like."""
    files: dict[str, Path] = field(default_factory=dict)
    """Files in the store entries of finished stages: `<stage>/<file name>` -> path."""

    def add(self, *, rejected: tuple[Rejected, ...] = (), **values: Any) -> "PipelineState":
        """A copy with some values filled in and more rejected candidates."""
        return dataclasses.replace(self, rejected=self.rejected + tuple(rejected), **values)

    def chosen(self, ids: tuple[str, ...]) -> tuple[Sample, ...]:
        """The samples with these ids, in this order."""
        by_id = {sample.id: sample for sample in self.samples}
        return tuple(by_id[identifier] for identifier in ids)
