"""Rejection fine-tuning: supervised training on the base model's own right rollouts (arXiv 2308.01825)."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from dsrl.digest import text_digest
from dsrl.errors import StageFailed, UserError
from dsrl.part import part
from dsrl.train.job import Row
from dsrl.train.rows import sample_row, training_rows
from dsrl.train.sft import Sft

if TYPE_CHECKING:
    from dsrl.context import Context
    from dsrl.study import Study

ROLLOUTS = "score/rollouts.parquet"
"""Side table of the stage `score`."""
COLUMNS = ("sample", "text", "correct", "finish_reason")


@part
class Rft(Sft):
    """Several different right rollouts of a sample make as many rows; a sample without one is left out."""

    needs: ClassVar[tuple[str, ...]] = (*Sft.needs, "score")

    per_sample: int = Field(default=4, gt=0)
    """Most rollouts of one sample, the first that differ; those cut at the token limit aside."""

    @property
    def label(self) -> str:
        return "rft"

    def check(self) -> None:
        super().check()
        if self.train_on == "gold":
            raise UserError(
                "train=rft learns from the rollouts of scored samples, and labelled data have none",
                got="train.train_on=gold",
                allowed="selected, control",
                next_step="train=sft train.train_on=gold learns from gold solutions",
            )

    def rows(self, study: "Study", context: "Context") -> tuple[Row, ...]:  # noqa: ARG002
        plain = training_rows(study, self.train_on, None, self.seed)
        own = right_rollouts(study.files.get(ROLLOUTS), {row.id for row in plain}, self.per_sample)
        by_id = {sample.id: sample for sample in study.samples}
        rows = [
            sample_row(study.task, by_id[row.id].replace(solution=text))
            for row in plain
            for text in own.get(row.id, ())
        ]
        if not rows:
            raise StageFailed(
                "train=rft: the base model solved none of the samples",
                got=f"0 of {len(plain)} samples with a right rollout (train.train_on={self.train_on})",
                next_step="raise rollouts, or take easier samples: select=easiest",
            )
        return tuple(rows)


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
