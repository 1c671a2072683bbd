"""TarGEN (arXiv 2310.17876): from contexts to instance seeds to instances of a given label, each looked over again."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, Field, StringConstraints

from dsrl import prompts
from dsrl.core.component import component
from dsrl.core.errors import StageFailed
from dsrl.core.estimate import Range
from dsrl.data.sample import Provenance, Rejected, Sample
from dsrl.forecast import defaults
from dsrl.llm.structured.answer import TEMPLATES, ask_until_usable
from dsrl.pipeline.state import PipelineState
from dsrl.stages.generate.base import Desk, TeacherGenerator
from dsrl.stages.generate.candidate import unusable

if TYPE_CHECKING:
    from dsrl.llm import Client

Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Contexts(BaseModel):
    """Settings in which samples may play."""

    contexts: list[Line] = Field(min_length=1)


class InstanceSeed(BaseModel):
    """Raw material of one sample."""

    seed: Line


@component("stages.generate.targen")
class TarGen(TeacherGenerator):
    """Seedless: no demos, no passages. Labels take turns where the answer kind has a few (choice, label); where answers
    are open, the writer settles on one first. The last step, self-correction, is a verifier."""

    place: ClassVar[str] = "targen"
    inputs = ("definition",)
    templates: ClassVar[tuple[str, ...]] = ("constrained", "contexts", "instance_seed", *TEMPLATES)
    drafts: ClassVar[int] = 2

    num_contexts: int = Field(default=20, ge=1)
    """Settings asked for; candidates go through them in turn."""

    def pieces(self, state: PipelineState) -> int:  # noqa: ARG002
        return 1

    async def prepare(self, state: PipelineState, client: "Client", number: int) -> Sequence[str]:  # noqa: ARG002
        """The contexts."""
        prompt = prompts.render("contexts", task=state.task, pattern=None, demos=(), count=self.num_contexts)
        answer = await ask_until_usable(
            client.ask, [{"role": "user", "content": prompt}], Contexts, temperature=self.temperature
        )
        if answer.value is None:
            raise StageFailed("targen: the teacher gave no contexts", got=f"{answer.error}: {answer.detail}")
        return tuple(dict.fromkeys(answer.value.contexts))[: self.num_contexts]

    def imagined(self, state: PipelineState) -> tuple[Sequence[str], Range]:  # noqa: ARG002
        return ("a setting",), defaults.KEYWORDS_TOKENS * (self.num_contexts / 10)

    def told(self, material: Any) -> dict[str, Any]:
        return {"contexts": list(material)}

    async def attempt(self, number: int, desk: Desk) -> Sample | Rejected:
        task, labels, contexts = desk.state.task, desk.state.task.answer.answers, desk.material
        context = contexts[number // max(1, len(labels)) % len(contexts)]
        shown = {"task": task.turn(number), "pattern": None, "demos": (), "context": context, "index": number}
        prompt = prompts.render("instance_seed", **shown)
        messages = [{"role": "user", "content": prompt}]
        seed = await desk.client.ask(messages, InstanceSeed, index=self.seed, temperature=self.temperature)
        if seed.value is None:
            provenance = Provenance(teacher=self.teacher.model, index=number, calls=seed.calls)
            return unusable(self.name, seed.error, seed.detail, provenance)
        label = labels[number % len(labels)] if labels else None
        prompt = prompts.render("constrained", **shown, seed=seed.value.seed, label=label)
        return await self.draft(number, desk, prompt, calls=seed.calls)
