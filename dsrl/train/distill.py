"""Distillation: supervised training on the teacher's own answers, those votes that came to the label."""

from typing import TYPE_CHECKING

from pydantic import Field

from dsrl.digest import text_digest
from dsrl.errors import StageFailed, UserError
from dsrl.part import part
from dsrl.sample import Sample
from dsrl.task import Task
from dsrl.train.job import Row
from dsrl.train.rows import sample_row, training_rows
from dsrl.train.sft import Sft

if TYPE_CHECKING:
    from dsrl.context import Context
    from dsrl.llm import CallsStore
    from dsrl.study import Study


@part
class Distill(Sft):
    """Several different right answers of the teacher to a sample make as many rows. They are the votes that were paid
    for when it was labelled, read out of the calls store; nobody is asked again."""

    per_sample: int = Field(default=4, gt=0)
    """Most answers to one sample, the first that differ."""

    @property
    def label(self) -> str:
        return "distill"

    def check(self) -> None:
        super().check()
        if self.train_on == "gold":
            raise UserError(
                "train=distill learns from the teacher's votes, and labelled data have none",
                got="train.train_on=gold",
                allowed="selected, control",
                next_step="train=sft train.train_on=gold learns from gold solutions",
            )

    def rows(self, study: "Study", context: "Context") -> tuple[Row, ...]:
        plain = training_rows(study, self.train_on, None, self.seed)
        by_id = {sample.id: sample for sample in study.samples}
        answers = {row.id: right_votes(by_id[row.id], study.task, context.calls, self.per_sample) for row in plain}
        rows = [
            sample_row(study.task, by_id[row.id].replace(solution=text)) for row in plain for text in answers[row.id]
        ]
        if not rows:
            raise StageFailed(
                "train=distill: no vote of the teacher stands behind the samples",
                got=f"0 of {len(plain)} samples (train.train_on={self.train_on})",
                next_step="label them by dsrl.generate.MajorityVote, or use train=sft",
            )
        return tuple(rows)


def right_votes(sample: Sample, task: Task, calls: "CallsStore", most: int) -> list[str]:
    """The first different replies to the sample's question, put as in training, that are right by its label. Raises
    `StageFailed` where a reply behind the sample is in the calls store no more: what is trained on must not depend on
    what was lost."""
    grader = task.answer.given(sample.input)
    found: dict[str, str] = {}
    for call in sample.provenance.calls:
        digest, _, index = call.rpartition(":")
        request, reply = calls.request(digest), calls.get(digest, int(index))
        if request is None or reply is None:
            raise StageFailed(
                "train=distill: a reply of the teacher is in the calls store no more",
                got=f"sample {sample.id}, call {call}",
                next_step="restore store/calls, or make the samples again under another seed",
            )
        asked = request["messages"][-1]["content"] == task.prompt(sample.input)
        if asked and reply.text is not None and len(found) < most and grader.grade(reply.text, sample.answer).correct:
            found.setdefault(text_digest(reply.text), reply.text)
    return list(found.values())
