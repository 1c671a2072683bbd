"""Verifiers that ask another model: a quality judge, and a second opinion on the kept answer."""

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, Field

from dsrl import prompts
from dsrl.core.component import Component, component
from dsrl.data.images import images_first
from dsrl.data.task import Task
from dsrl.llm import Endpoint
from dsrl.stages.generate.candidate import Candidate, Refusal
from dsrl.stages.generate.vote import MajorityVote

if TYPE_CHECKING:
    from dsrl.llm import Client

TEMPLATE = "quality"


class Judgement(BaseModel):  # sent with the request: another name or docstring would change its digest
    """What the judge is asked for."""

    score: float = Field(ge=0, le=10)
    reason: str


@component("verify.quality_judge")
class QualityJudge(Component):
    """Scores a rewritten question beside its seed from 0 to 10 (SynthRL, algorithm 1), without seeing the answer.

    A reply without a score is no judgement: the candidate is not accepted, and not counted as bad either.
    """

    version: ClassVar[int] = 1

    teacher: Endpoint
    threshold: float = Field(default=8.0, ge=0, le=10)
    """Least score that is accepted."""
    temperature: float = Field(default=0.0, ge=0)

    async def verify(self, candidate: Candidate, task: Task, client: "Client") -> Candidate | Refusal:
        assert candidate.parent is not None
        prompt = prompts.render(
            TEMPLATE,
            task=task,
            pattern=None,
            demos=(),
            question=candidate.parent.input,
            rewritten=candidate.input,
            images=len(candidate.images),
        )
        messages = [{"role": "user", "content": images_first(prompt, candidate.images)}]
        answer = await client.ask(messages, Judgement, temperature=self.temperature)
        judged = replace(candidate, provenance=candidate.add_calls(answer.calls))
        if answer.value is None:
            return Refusal("no judgement", f"{answer.error}: {answer.detail}", judged)
        detail = f"{answer.value.score:g} of 10: {answer.value.reason}"
        if answer.value.score < self.threshold:
            return Refusal("low quality", detail, judged)
        return judged.accept("QualityJudge", detail)


@component("verify.second_model")
class SecondModel(Component):
    """The majority of another model's answers must be the kept answer. That the target sometimes reaches an answer does
    not prove it correct; that two models reach it independently makes it likely."""

    vote: MajorityVote

    @property
    def teacher(self) -> Endpoint:
        """The second model."""
        return self.vote.teacher

    async def verify(self, candidate: Candidate, task: Task, client: "Client") -> Candidate | Refusal:
        """The candidate keeps its answer; the votes are recorded."""
        kept = candidate.answer
        assert kept is not None
        outcome = await self.vote.verify(candidate, task, client)
        if isinstance(outcome, Refusal):
            return outcome
        voted = outcome.answer
        assert voted is not None
        if not task.answer.for_question(candidate.input).same(voted, kept):
            return Refusal("second model disagrees", f"{voted} instead of {kept}", replace(outcome, answer=kept))
        return replace(outcome, answer=kept)
