"""TarGEN (arXiv 2310.17876): contexts, then instance seeds, then instances of a given label, then self-correction."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, Field, StringConstraints

from dsrl import prompts
from dsrl.core.component import Component, component
from dsrl.core.errors import StageFailed
from dsrl.data.images import images_first
from dsrl.data.sample import Provenance, Rejected
from dsrl.data.task import Task
from dsrl.forecast import defaults
from dsrl.forecast.estimate import Range
from dsrl.llm import Endpoint
from dsrl.llm.structured.answer import TEMPLATES, ask_until_usable
from dsrl.pipeline.state import PipelineState
from dsrl.stages.generate.base import GenerationInputs, TeacherGenerator
from dsrl.stages.generate.candidate import Candidate, DraftPrompt, Refusal, parse_failure

if TYPE_CHECKING:
    from dsrl.llm import Client

Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


# Both are sent with requests: another name or docstring would change their digests.
class Contexts(BaseModel):
    """Settings in which samples may play."""

    contexts: list[Line] = Field(min_length=1)


class InstanceSeed(BaseModel):
    """Raw material of one sample."""

    seed: Line


@component("stages.generate.targen")
class TarGen(TeacherGenerator):
    """Uses no demos and no passages. Labels take turns if the answer kind has a fixed set of them (choice, label); else
    the writer decides on an answer first. The last step, self-correction, is a verifier."""

    place: ClassVar[str] = "targen"
    inputs = ("definition",)
    templates: ClassVar[tuple[str, ...]] = ("constrained", "contexts", "instance_seed", *TEMPLATES)
    drafts: ClassVar[int] = 2

    num_contexts: int = Field(default=20, ge=1)
    """Contexts that the teacher is asked for; candidates take them in turn."""

    def num_setup_calls(self, state: PipelineState) -> int:  # noqa: ARG002
        return 1

    async def setup_call(self, number: int, state: PipelineState, client: "Client") -> Sequence[str]:  # noqa: ARG002
        """The contexts."""
        prompt = prompts.render("contexts", task=state.task, pattern=None, demos=(), count=self.num_contexts)
        answer = await ask_until_usable(
            client.ask, [{"role": "user", "content": prompt}], Contexts, temperature=self.temperature
        )
        if answer.value is None:
            raise StageFailed("targen: the teacher gave no contexts", got=f"{answer.error}: {answer.detail}")
        return tuple(dict.fromkeys(answer.value.contexts))[: self.num_contexts]

    def placeholder(self) -> tuple[Sequence[str], Range]:
        return ("a setting",), defaults.KEYWORDS_TOKENS * (self.num_contexts / 10)

    def shared_figures(self, shared: Any) -> dict[str, Any]:
        return {"contexts": list(shared)}

    async def draft_prompt(self, number: int, inputs: GenerationInputs) -> DraftPrompt | Rejected:
        task, labels, contexts = inputs.state.task, inputs.state.task.answer.answers, inputs.shared
        context = contexts[number // max(1, len(labels)) % len(contexts)]
        fields = {"task": task.turn(number), "pattern": None, "demos": (), "context": context, "index": number}
        messages = [{"role": "user", "content": prompts.render("instance_seed", **fields)}]
        seed = await inputs.client.ask(messages, InstanceSeed, index=self.seed, temperature=self.temperature)
        if seed.value is None:
            provenance = Provenance(teacher=self.teacher.model, index=number, calls=seed.calls)
            return parse_failure(self.name, seed.error, seed.detail, provenance)
        label = labels[number % len(labels)] if labels else None
        text = prompts.render("constrained", **fields, seed=seed.value.seed, label=label)
        return DraftPrompt(text, number, calls=seed.calls)


@component("verify.self_correction")
class SelfCorrection(Component):
    """Shows the teacher the candidate with its answer, has it look for mistakes and answer anew; the new answer is the
    label (TarGEN's last step)."""

    prompt: ClassVar[str] = "correct"

    teacher: Endpoint
    temperature: float = Field(default=0.0, ge=0)

    async def verify(self, candidate: Candidate, task: Task, client: "Client") -> Candidate | Refusal:
        text = prompts.render(
            self.prompt, task=task, pattern=None, demos=(), input=candidate.input, answer=candidate.output
        )
        message = {"role": "user", "content": images_first(text, candidate.images)}
        (reply,) = await client.complete(self.teacher.request([message], temperature=self.temperature))
        provenance = candidate.add_calls([reply.call] if reply.error is None else [])
        grader = task.answer.for_question(candidate.input)
        answer = None if reply.text is None else grader.parse(reply.text)
        if answer is None:
            reason = "calls failed" if reply.text is None else "no readable correction"
            return Refusal(reason, (reply.text or reply.error or "")[-80:], candidate)
        before = grader.parse(candidate.output)
        confirmed = before is not None and grader.same(before, answer)
        return candidate.accept(
            "SelfCorrection",
            "confirmed" if confirmed else "corrected",
            answer=answer,
            solution=reply.text,
            provenance=provenance,
        )

    def key_fields(self) -> dict[str, object]:
        """Includes the prompt's text, because no stage lists it among its templates."""
        return {**super().key_fields(), "prompt": prompts.source(self.prompt)}
