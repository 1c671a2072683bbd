"""Distillation: supervised training on the teacher's own answers, those votes that came to the label."""

from collections.abc import Collection
from typing import TYPE_CHECKING, ClassVar

from dsrl.core.component import component
from dsrl.core.digest import text_digest
from dsrl.core.errors import StageFailed
from dsrl.data.images import chat_content
from dsrl.data.sample import Sample
from dsrl.data.task import Task
from dsrl.stages.train.multi_solution_sft import MultiSolutionSft

if TYPE_CHECKING:
    from dsrl.llm import CallsStore
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState


@component("stages.train.distill")
class Distill(MultiSolutionSft):
    """Several different right answers of the teacher to a sample make as many rows. They are the votes that were paid
    for when it was labelled, read out of the calls store; nobody is asked again."""

    learns_from: ClassVar[str] = "the teacher's votes"
    none_found: ClassVar[tuple[str, str, str]] = (
        "no vote of the teacher stands behind the samples",
        "",
        "label them by dsrl.stages.generate.MajorityVote, or use train=sft",
    )

    @property
    def label(self) -> str:
        return "distill"

    def texts(self, state: "PipelineState", samples: Collection[Sample], context: "Context") -> dict[str, list[str]]:
        return {sample.id: right_votes(sample, state.task, context.calls, self.per_sample) for sample in samples}


def right_votes(sample: Sample, task: Task, calls: "CallsStore", most: int) -> list[str]:
    """The first different replies to the sample's question, put as in training, that are right by its label. Raises
    `StageFailed` where a reply behind the sample is in the calls store no more: what is trained on must not depend on
    what was lost."""
    grader = task.answer.for_question(sample.input)
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
        asked = request["messages"][-1]["content"] == chat_content(task.prompt(sample.input, sample.images))
        if asked and reply.text is not None and len(found) < most and grader.grade(reply.text, sample.answer).correct:
            found.setdefault(text_digest(reply.text), reply.text)
    return list(found.values())
