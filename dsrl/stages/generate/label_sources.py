"""Labels without a vote, as baselines have them: the writer's own answer, or that of one look back at it."""

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from dsrl import prompts
from dsrl.core.component import Component, component
from dsrl.data.images import images_first
from dsrl.data.task import Task
from dsrl.llm import Endpoint
from dsrl.stages.generate.candidate import Candidate, Refusal

if TYPE_CHECKING:
    from dsrl.llm import Client


@component("verify.own_answer")
class OwnAnswer(Component):
    """The answer that the writer of a candidate gave is its label (Self-Instruct); nobody else is asked."""

    async def verify(self, candidate: Candidate, task: Task, client: "Client") -> Candidate | Refusal:  # noqa: ARG002
        answer = task.answer.for_question(candidate.input).parse(candidate.output)
        if answer is None:
            return Refusal("no readable answer", candidate.output[-80:], candidate)
        return candidate.passed("OwnAnswer", answer=answer, solution=candidate.output)


@component("verify.self_correction")
class SelfCorrection(Component):
    """The teacher is shown the candidate with its answer, looks for mistakes and answers anew; that is the label
    (TarGEN, arXiv 2310.17876)."""

    prompt: ClassVar[str] = "correct"

    teacher: Endpoint
    temperature: float = Field(default=0.0, ge=0)

    async def verify(self, candidate: Candidate, task: Task, client: "Client") -> Candidate | Refusal:
        text = prompts.render(
            self.prompt, task=task, pattern=None, demos=(), input=candidate.input, answer=candidate.output
        )
        asked = {"role": "user", "content": images_first(text, candidate.images)}
        request = self.teacher.request([asked], temperature=self.temperature)
        (reply,) = await client.complete(request)
        provenance = candidate.with_calls([reply.call] if reply.error is None else [])
        grader = task.answer.for_question(candidate.input)
        answer = None if reply.text is None else grader.parse(reply.text)
        if answer is None:
            reason = "calls failed" if reply.text is None else "no readable correction"
            return Refusal(reason, (reply.text or reply.error or "")[-80:], candidate)
        before = grader.parse(candidate.output)
        changed = before is None or not grader.same(before, answer)
        reason = "corrected" if changed else "confirmed"
        return candidate.passed("SelfCorrection", reason, answer=answer, solution=reply.text, provenance=provenance)

    def key_fields(self) -> dict[str, object]:
        """With the words of its prompt, which no stage lists among its templates."""
        return {**super().key_fields(), "prompt": prompts.source(self.prompt)}
