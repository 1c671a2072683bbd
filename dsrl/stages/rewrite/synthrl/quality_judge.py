"""The quality judge: is the rewritten question really harder, and is it a good question?"""

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, Field

from dsrl import prompts
from dsrl.core.component import Component, component
from dsrl.data.images import images_first
from dsrl.data.task import Task
from dsrl.llm import Endpoint
from dsrl.stages.generate.candidate import Candidate, Refusal

if TYPE_CHECKING:
    from dsrl.llm import Client

TEMPLATE = "quality"


class Judgement(BaseModel):
    """What the judge is asked for."""

    score: float = Field(ge=0, le=10)
    reason: str


@component("verify.quality_judge")
class QualityJudge(Component):
    """Scores a rewritten question beside its seed from 0 to 10 (SynthRL, algorithm 1). It doesn't see the answer.

    A reply without a score is no judgement: the candidate isn't accepted, and not called bad either."""

    version: ClassVar[int] = 1

    teacher: Endpoint
    threshold: float = Field(default=8.0, ge=0, le=10)
    """Least score that is accepted."""
    temperature: float = Field(default=0.0, ge=0)

    async def verify(self, candidate: Candidate, task: Task, client: "Client") -> Candidate | Refusal:
        """One reply, and a repair turn where it holds no score."""
        assert candidate.parent is not None
        question, rewritten = candidate.parent.input, candidate.input
        images = candidate.images
        asked = {"question": question, "rewritten": rewritten, "images": len(images)}
        prompt = prompts.render(TEMPLATE, task=task, pattern=None, demos=(), **asked)
        messages = [{"role": "user", "content": images_first(prompt, images)}]
        answer = await client.ask(messages, Judgement, temperature=self.temperature)
        judged = replace(candidate, provenance=candidate.with_calls(answer.calls))
        if answer.value is None:
            return Refusal("no judgement", f"{answer.error}: {answer.detail}", judged)
        words = f"{answer.value.score:g} of 10: {answer.value.reason}"
        if answer.value.score < self.threshold:
            return Refusal("low quality", words, judged)
        return judged.passed("QualityJudge", words)
