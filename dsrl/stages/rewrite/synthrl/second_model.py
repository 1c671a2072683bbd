"""A second model's opinion: does it, too, come to the answer that was kept?"""

from dataclasses import replace
from typing import TYPE_CHECKING

from dsrl.core.component import Component, component
from dsrl.data.task import Task
from dsrl.llm import Endpoint
from dsrl.stages.generate.candidate import Candidate, Refusal
from dsrl.stages.generate.vote import MajorityVote

if TYPE_CHECKING:
    from dsrl.llm import Client


@component("verify.second_model")
class SecondModel(Component):
    """The majority of another model's answers has to be the answer that was kept. That the target sometimes comes to it
    doesn't prove it right; two models that come to it independently make it likely."""

    vote: MajorityVote

    @property
    def teacher(self) -> Endpoint:
        """Who is asked."""
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
