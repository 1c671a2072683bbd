"""Supervised training on several right texts of each sample, whoever wrote them."""

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from dsrl.core.component import component
from dsrl.core.errors import StageFailed, UserError
from dsrl.data.sample import Sample
from dsrl.stages.train.job import Row
from dsrl.stages.train.rows import sample_row, training_rows
from dsrl.stages.train.sft import Sft

if TYPE_CHECKING:
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState


@component(None)
class MultiSolutionSft(Sft):
    """Each text is a row; a sample without one is left out."""

    learns_from: ClassVar[str]
    """What labelled data lack, in words."""
    none_found: ClassVar[tuple[str, str, str]]
    """For the error where no sample has a text: what is wrong, what there are none of, and what to do."""

    per_sample: int = Field(default=4, gt=0)
    """Most texts of one sample, the first that differ."""

    @abstractmethod
    def texts(
        self, state: "PipelineState", samples: Collection[Sample], context: "Context"
    ) -> Mapping[str, Sequence[str]]:
        """Sample id -> its right texts."""

    def check(self) -> None:
        super().check()
        if self.train_on == "gold":
            raise UserError(
                f"train={self.label} learns from {self.learns_from}, and labelled data have none",
                got="train.train_on=gold",
                allowed="selected, control",
                next_step="train=sft train.train_on=gold learns from gold solutions",
            )

    def rows(self, state: "PipelineState", context: "Context") -> tuple[Row, ...]:
        plain = training_rows(state, self.train_on, None, self.seed)
        by_id = {sample.id: sample for sample in state.samples}
        found = self.texts(state, [by_id[row.id] for row in plain], context)
        rows = [
            sample_row(state.task, by_id[row.id].replace(solution=text))
            for row in plain
            for text in found.get(row.id, ())
        ]
        if not rows:
            what, lacking, cure = self.none_found
            raise StageFailed(
                f"train={self.label}: {what}",
                got=f"0 of {len(plain)} samples{lacking} (train.train_on={self.train_on})",
                next_step=cure,
            )
        return tuple(rows)
