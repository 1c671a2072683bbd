"""The view of an experiment that every stage gets and returns."""

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
    """What is known so far. Stages never change it; they return one with more in it."""

    task: Task
    base: Model | None = None
    """The model that is measured and trained; in later rounds, the one trained before."""
    keywords: tuple[str, ...] = ()
    passages: tuple[Passage, ...] = ()
    samples: tuple[Sample, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    """Candidates that did not become samples, of all stages."""
    selected: tuple[str, ...] = ()
    """Ids of the samples to train on, most promising first."""
    control: tuple[str, ...] = ()
    """Ids of a random set of the same size, the counterfactual."""
    trained: Model | None = None
    evaluation_base: Evaluation | None = None
    evaluation_trained: Evaluation | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    """The latest stage's own figures, for `metrics.json` and the report; JSON-like."""
    files: dict[str, Path] = field(default_factory=dict)
    """Side tables that stages wrote into their store entry: `<stage>/<file name>` -> path."""

    def add(self, *, rejected: tuple[Rejected, ...] = (), **values: Any) -> "PipelineState":
        """This state with some values filled in and more rejected candidates."""
        return dataclasses.replace(self, rejected=self.rejected + tuple(rejected), **values)

    def chosen(self, ids: tuple[str, ...]) -> tuple[Sample, ...]:
        """The samples with these ids, in this order."""
        by_id = {sample.id: sample for sample in self.samples}
        return tuple(by_id[identifier] for identifier in ids)
