"""Rejection fine-tuning: supervised training on the base model's own right rollouts (arXiv 2308.01825)."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from dsrl.core.component import component
from dsrl.core.digest import text_digest
from dsrl.core.errors import UserError
from dsrl.data.sample import Sample
from dsrl.stages.train.multi_solution_sft import MultiSolutionSft

if TYPE_CHECKING:
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState

ROLLOUTS = "score/rollouts.parquet"
"""Side table of the stage `score`."""
COLUMNS = ("sample", "text", "correct", "finish_reason")


@component("stages.train.rft")
class Rft(MultiSolutionSft):
    """Several different right rollouts of a sample make as many rows; those cut at the token limit aside."""

    inputs: ClassVar[tuple[str, ...]] = (*MultiSolutionSft.inputs, "score")
    learns_from: ClassVar[str] = "the rollouts of scored samples"
    none_found: ClassVar[tuple[str, str, str]] = (
        "the base model solved none of the samples",
        " with a right rollout",
        "raise rollouts, or take easier samples: select=easiest",
    )

    @property
    def label(self) -> str:
        return "rft"

    def texts(self, state: "PipelineState", samples: Collection[Sample], context: "Context") -> dict[str, list[str]]:  # noqa: ARG002
        return right_rollouts(state.files.get(ROLLOUTS), {sample.id for sample in samples}, self.per_sample)


def right_rollouts(path: Path | None, ids: Collection[str], most: int) -> dict[str, list[str]]:
    """Sample id -> its first right rollouts with different texts."""
    if path is None:
        raise UserError("train=rft finds no rollouts", next_step=f"give the stage that makes {ROLLOUTS} the name score")
    import pyarrow.parquet

    found: dict[str, dict[str, str]] = {identifier: {} for identifier in ids}
    for batch in pyarrow.parquet.ParquetFile(path).iter_batches(columns=list(COLUMNS)):
        for row in batch.to_pylist():
            texts = found.get(row["sample"])
            if texts is not None and row["correct"] and row["finish_reason"] != "length" and len(texts) < most:
                texts.setdefault(text_digest(row["text"]), row["text"])
    return {identifier: list(texts.values()) for identifier, texts in found.items()}
