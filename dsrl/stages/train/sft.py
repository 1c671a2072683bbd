"""Supervised fine-tuning: on the teacher's solutions, on its votes, or on the base model's own correct rollouts."""

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dsrl.core.component import component
from dsrl.core.digest import text_digest
from dsrl.core.errors import StageFailed, UserError
from dsrl.data.images import chat_content
from dsrl.data.sample import Sample
from dsrl.data.task import Task
from dsrl.stages.train.base import Training
from dsrl.stages.train.job import TrainingRow
from dsrl.stages.train.rows import num_steps, sample_row, training_rows

if TYPE_CHECKING:
    from dsrl.llm import ReplyCache
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState

ROLLOUTS = "score/rollouts.parquet"
"""Side table of the stage `score`."""
ROLLOUT_COLUMNS = ("sample", "text", "correct", "finish_reason")


@component("stages.train.sft")
class Sft(Training):
    """Next-token loss on the solution, none on the prompt; the learning rate decays linearly."""

    module: ClassVar[str] = "dsrl.stages.train.sft_worker"
    engine: ClassVar[str] = "transformers"
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers", "accelerate")

    learning_rate: float = Field(default=2e-5, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    batch: int = Field(default=64, gt=0)
    """Samples in one update."""
    epochs: int = Field(default=3, gt=0)
    max_steps: int | None = Field(default=None, gt=0)
    """Number of updates; overrides `epochs`."""
    warmup_steps: int = Field(default=0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_response_tokens: int = Field(default=1024, gt=0)
    """Longest reply to held-out samples."""

    @property
    def label(self) -> str:
        return "sft"

    def rows(self, state: "PipelineState", context: "Context") -> tuple[TrainingRow, ...]:
        """The rows with a solution. Raises `StageFailed` if there are none."""
        rows = super().rows(state, context)
        solved = tuple(row for row in rows if row.solution)
        if not solved:
            raise StageFailed(
                "none of the samples has a solution to learn from",
                got=f"0 of {len(rows)} (train.train_on={self.train_on})",
                next_step="use train=trl, or data whose answers follow the task's output format",
            )
        return solved

    def plan_steps(self, num_rows: int) -> tuple[int, int]:
        return num_steps(num_rows, self.batch, self.epochs, self.max_steps, "train.batch"), self.batch

    def settings(self) -> dict[str, Any]:
        names = ("learning_rate", "weight_decay", "batch", "warmup_steps", "max_grad_norm")
        return {name: getattr(self, name) for name in names}

    def replies_per_row(self) -> int:
        return 0

    def max_tokens(self) -> int:
        return self.max_response_tokens


@component(None)
class MultiSolutionSft(Sft):
    """Base class for training on several correct solutions per sample. Each one is a row; samples without are left
    out."""

    learns_from: ClassVar[str]
    """Where the solutions come from, for messages."""
    none_found: ClassVar[tuple[str, str, str]]
    """For the error if there are no solutions at all: what is wrong, what each sample lacks, the next step."""

    per_sample: int = Field(default=4, gt=0)
    """Most solutions of one sample: the first ones with different texts."""

    @abstractmethod
    def solutions(
        self, state: "PipelineState", samples: Collection[Sample], context: "Context"
    ) -> Mapping[str, Sequence[str]]:
        """Sample id -> its correct solutions."""

    def check(self) -> None:
        super().check()
        if self.train_on == "gold":
            raise UserError(
                f"train={self.label} learns from {self.learns_from}, which labelled data don't have",
                got="train.train_on=gold",
                allowed="selected, control",
                next_step="train=sft train.train_on=gold learns from gold solutions",
            )

    def rows(self, state: "PipelineState", context: "Context") -> tuple[TrainingRow, ...]:
        chosen = training_rows(state, self.train_on, None, self.seed)
        by_id = {sample.id: sample for sample in state.samples}
        solutions = self.solutions(state, [by_id[row.id] for row in chosen], context)
        rows = [
            sample_row(state.task, by_id[row.id].replace(solution=text))
            for row in chosen
            for text in solutions.get(row.id, ())
        ]
        if not rows:
            problem, lacking, next_step = self.none_found
            raise StageFailed(
                f"train={self.label}: {problem}",
                got=f"0 of {len(chosen)} samples{lacking} (train.train_on={self.train_on})",
                next_step=next_step,
            )
        return tuple(rows)


@component("stages.train.rft")
class Rft(MultiSolutionSft):
    """Rejection fine-tuning (arXiv 2308.01825): the base model's own correct rollouts, except for truncated ones."""

    inputs: ClassVar[tuple[str, ...]] = (*MultiSolutionSft.inputs, "score")
    learns_from: ClassVar[str] = "the rollouts of scored samples"
    none_found: ClassVar[tuple[str, str, str]] = (
        "the base model solved none of the samples",
        " with a correct rollout",
        "raise rollouts, or take easier samples: select=easiest",
    )

    @property
    def label(self) -> str:
        return "rft"

    def solutions(
        self,
        state: "PipelineState",
        samples: Collection[Sample],
        context: "Context",  # noqa: ARG002
    ) -> dict[str, list[str]]:
        return correct_rollouts(state.files.get(ROLLOUTS), {sample.id for sample in samples}, self.per_sample)


def correct_rollouts(path: Path | None, ids: Collection[str], limit: int) -> dict[str, list[str]]:
    """Sample id -> the texts of its first different correct rollouts."""
    if path is None:
        raise UserError("train=rft finds no rollouts", next_step=f"name the stage that writes {ROLLOUTS} `score`")
    import pyarrow.parquet

    found: dict[str, dict[str, str]] = {identifier: {} for identifier in ids}
    for batch in pyarrow.parquet.ParquetFile(path).iter_batches(columns=list(ROLLOUT_COLUMNS)):
        for row in batch.to_pylist():
            texts = found.get(row["sample"])
            if texts is not None and row["correct"] and row["finish_reason"] != "length" and len(texts) < limit:
                texts.setdefault(text_digest(row["text"]), row["text"])
    return {identifier: list(texts.values()) for identifier, texts in found.items()}


@component("stages.train.distill")
class Distill(MultiSolutionSft):
    """Distillation: the teacher's votes that agree with the label. They are read from the cache of replies; the teacher
    is not asked again."""

    learns_from: ClassVar[str] = "the teacher's votes"
    none_found: ClassVar[tuple[str, str, str]] = (
        "the samples have no votes of the teacher",
        "",
        "label them by dsrl.stages.generate.MajorityVote, or use train=sft",
    )

    @property
    def label(self) -> str:
        return "distill"

    def solutions(
        self, state: "PipelineState", samples: Collection[Sample], context: "Context"
    ) -> dict[str, list[str]]:
        return {
            sample.id: correct_votes(sample, state.task, context.reply_cache, self.per_sample) for sample in samples
        }


def correct_votes(sample: Sample, task: Task, calls: "ReplyCache", limit: int) -> list[str]:
    """The first different replies to the sample's question that its label grades as correct.

    Only replies to the prompt of the training count. Raises `StageFailed` if a reply behind the sample is missing from
    the cache: the training data must not depend on what was lost.
    """
    grader = task.answer.for_question(sample.input)
    found: dict[str, str] = {}
    for call in sample.provenance.calls:
        digest, _, index = call.rpartition(":")
        request, reply = calls.request(digest), calls.get(digest, int(index))
        if request is None or reply is None:
            raise StageFailed(
                "train=distill: a reply of the teacher is missing from the cache",
                got=f"sample {sample.id}, call {call}",
                next_step="restore store/calls, or generate the samples again under another seed",
            )
        same_prompt = request["messages"][-1]["content"] == chat_content(task.prompt(sample.input, sample.images))
        if not same_prompt or reply.text is None or len(found) >= limit:
            continue
        if grader.grade(reply.text, sample.answer).correct:
            found.setdefault(text_digest(reply.text), reply.text)
    return list(found.values())
