"""One candidate from its prompt to a sample or a recorded rejection: the steps that generation and rewriting share."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Protocol, runtime_checkable

from pydantic import BaseModel, Field, StringConstraints

from dsrl import prompts
from dsrl.core.digest import digest
from dsrl.core.errors import UserError
from dsrl.data.images import images_first, with_placeholders
from dsrl.data.sample import Image, Origin, Provenance, Rate, Rejected, Sample, Verdict, Votes, new_sample
from dsrl.data.task import Task
from dsrl.models.rollout.protocols import Question

if TYPE_CHECKING:
    from dsrl.llm import Client, Endpoint
    from dsrl.stages.generate.duplicates import DuplicateFilter


class SampleDraft(BaseModel):  # sent with the request: another name or docstring would change its digest
    """What the teacher is asked to write."""

    input: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    output: str = Field(min_length=1)


@dataclass(frozen=True)
class DraftPrompt:
    """The prompt for one candidate, and what the sample's provenance records about it."""

    text: str
    number: int
    """Number of the candidate."""
    demos: tuple[int, ...] = ()
    keyword: str | None = None
    passage: str | None = None
    calls: tuple[str, ...] = ()
    """Ids of the replies that the prompt was built from."""
    origin: Origin = "initial"
    parent: Sample | None = None
    """The sample to rewrite."""
    images: tuple[Image, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """A draft on its way through the verifiers."""

    input: str
    output: str
    origin: Origin
    provenance: Provenance
    parent: Sample | None = None
    images: tuple[Image, ...] = ()
    """As many as the input has placeholders."""
    answer: str | None = None
    """Set by the verifier that labels it."""
    solution: str | None = None
    votes: Votes | None = None
    verdicts: tuple[Verdict, ...] = ()
    rate: Rate | None = None
    """The target's pass rate by the latest verifier that counted it."""
    num_consumed: int = 0
    """Replies of the target that verifiers have used: later counts start after them."""
    num_consumed_of_parent: int = 0

    @property
    def parent_id(self) -> str | None:
        return self.parent.id if self.parent else None

    def accept(self, verifier: str, reason: str = "", **changes: object) -> "Candidate":
        """A copy with this verifier's accepting verdict and some fields changed."""
        verdict = Verdict(verifier=verifier, accepted=True, reason=reason)
        return replace(self, verdicts=(*self.verdicts, verdict), **changes)  # type: ignore[arg-type]

    def add_calls(self, calls: Sequence[str]) -> Provenance:
        """The provenance with more paid replies."""
        return replace(self.provenance, calls=(*self.provenance.calls, *calls))

    def to_question(self) -> Question:
        """For a count of the target's replies that no earlier verifier has used."""
        return Question(self.input, self.answer or "", self.images, self.num_consumed)

    def to_sample(self, task: Task) -> Sample:
        """The finished sample. Raises `UserError` if no verifier set an answer."""
        if self.answer is None:
            raise UserError(
                "no verifier labels the samples", next_step="put dsrl.stages.generate.MajorityVote into `verify`"
            )
        return new_sample(
            task.name,
            self.input,
            self.answer,
            self.origin,
            images=self.images,
            parent=self.parent,
            solution=self.solution,
            votes=self.votes,
            verdicts=self.verdicts,
            provenance=self.provenance,
        )


@dataclass(frozen=True)
class Refusal:
    """A rejection by a verifier."""

    reason: str
    """Short and countable."""
    detail: str
    candidate: Candidate
    """With the verifier's findings filled in."""

    def to_rejected(self, stage: str) -> Rejected:
        return Rejected.of(self.candidate, stage, self.reason, self.detail)


@runtime_checkable
class Verifier(Protocol):
    """Accepts, labels or refuses a candidate."""

    async def verify(self, candidate: Candidate, task: Task, client: "Client") -> Candidate | Refusal:
        """The outcome may depend only on the candidate and on replies of the client's endpoint."""


@runtime_checkable
class AsksTeacher(Protocol):
    """A verifier that names the endpoint it asks, which need not be the writer's."""

    @property
    def teacher(self) -> "Endpoint": ...


class DraftingStage(Protocol):
    """The settings of a stage that has candidates drafted."""

    @property
    def name(self) -> str: ...
    @property
    def templates(self) -> tuple[str, ...]: ...
    @property
    def teacher(self) -> "Endpoint": ...
    @property
    def temperature(self) -> float: ...
    @property
    def seed(self) -> int: ...
    @property
    def verify(self) -> Sequence[Verifier]: ...


async def draft_and_verify(
    stage: DraftingStage, prompt: DraftPrompt, task: Task, client: "Client", duplicates: "DuplicateFilter"
) -> Sample | Rejected:
    """Have the teacher write one candidate, check the draft, and run it through the verifiers."""
    messages = [{"role": "user", "content": images_first(prompt.text, prompt.images)}]
    answer = await client.ask(messages, SampleDraft, index=stage.seed, temperature=stage.temperature)
    provenance = Provenance(
        teacher=stage.teacher.model,
        prompt=digest(prompts.source(stage.templates[0])),
        index=prompt.number,
        keyword=prompt.keyword,
        passage=prompt.passage,
        demos=prompt.demos,
        calls=(*prompt.calls, *answer.calls),
    )
    if answer.value is None:
        return parse_failure(stage.name, answer.error, answer.detail, provenance, prompt.parent)
    text = with_placeholders(answer.value.input, len(prompt.images))
    candidate = Candidate(
        text or answer.value.input, answer.value.output, prompt.origin, provenance, prompt.parent, prompt.images
    )
    if text is None:
        return Rejected.of(candidate, stage.name, "placeholders", f"not one for each of {len(prompt.images)} images")
    if near_duplicate := duplicates.near_duplicate_of(candidate, stage.name):
        return near_duplicate
    return await run_verifiers(candidate, stage.verify, task, client, stage.name)


async def run_verifiers(
    candidate: Candidate, verifiers: Sequence[Verifier], task: Task, client: "Client", stage: str
) -> Sample | Rejected:
    """Run the verifiers in order; the first refusal ends it."""
    for verifier in verifiers:
        outcome = await verifier.verify(candidate, task, client)
        if isinstance(outcome, Refusal):
            return outcome.to_rejected(stage)
        candidate = outcome
    return candidate.to_sample(task)


def parse_failure(
    stage: str, error: str | None, detail: str, provenance: Provenance, parent: Sample | None = None
) -> Rejected:
    """The record of a draft that could not be parsed or never came."""
    return Rejected(
        stage=stage,
        reason=error or "no answer",
        detail=detail,
        provenance=provenance,
        parent_id=parent.id if parent else None,
    )


def check_verifiers(stage: str, verifiers: Sequence[Verifier]) -> None:
    """Raise `UserError` if nothing would label the samples, before anything is paid for."""
    if not verifiers:
        raise UserError(
            f"{stage}.verify is empty, so no sample would get a label",
            next_step="put dsrl.stages.generate.MajorityVote into it",
        )
