"""From a teacher's draft to a sample or a recorded rejection: the way that new samples and rewrites share."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Protocol, runtime_checkable

from pydantic import BaseModel, Field, StringConstraints

from dsrl.core.errors import UserError
from dsrl.data.sample import Image, Origin, Provenance, Rate, Rejected, Sample, Verdict, Votes, new_sample
from dsrl.data.task import Task

if TYPE_CHECKING:
    from dsrl.llm import Client


class SampleDraft(BaseModel):
    """What the teacher is asked to write."""

    input: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    output: str = Field(min_length=1)


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
    """How often the target reaches the answer, by the latest verifier that had it counted."""
    drawn: int = 0
    """Replies of the target that verifiers have looked at: a later count begins after them."""
    drawn_of_parent: int = 0

    def passed(self, verifier: str, reason: str = "", **changes: object) -> "Candidate":
        """A copy that this verifier let through."""
        verdict = Verdict(verifier=verifier, accepted=True, reason=reason)
        return replace(self, verdicts=(*self.verdicts, verdict), **changes)  # type: ignore[arg-type]

    def with_calls(self, calls: Sequence[str]) -> Provenance:
        """The provenance with more paid replies in it."""
        return replace(self.provenance, calls=(*self.provenance.calls, *calls))

    def sample(self, task: Task) -> Sample:
        """The finished sample. Raises `UserError` if no verifier gave it an answer."""
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

    def rejected(self, stage: str, reason: str, detail: str = "") -> Rejected:
        """The record of a candidate that did not get through."""
        return Rejected(
            stage=stage,
            reason=reason,
            detail=detail,
            input=self.input,
            images=self.images,
            answer=self.answer,
            votes=self.votes,
            parent_id=self.parent.id if self.parent else None,
            provenance=self.provenance,
        )


@dataclass(frozen=True)
class Refusal:
    """A verifier's no."""

    reason: str
    """Short and countable."""
    detail: str
    candidate: Candidate
    """With what the verifier found out filled in."""


@runtime_checkable
class Verifier(Protocol):
    """Lets a candidate through, labels it, or refuses it."""

    async def verify(self, candidate: Candidate, task: Task, client: "Client") -> Candidate | Refusal:
        """Depends only on the candidate and on the replies of the client's endpoint."""


def check_verifiers(stage: str, verifiers: Sequence[Verifier]) -> None:
    """Raises `UserError` where nothing could label the samples, before anything is paid."""
    if not verifiers:
        raise UserError(
            f"{stage}.verify: empty, so that no sample gets a label",
            next_step="put dsrl.stages.generate.MajorityVote into it",
        )


async def verified(
    candidate: Candidate, verifiers: Sequence[Verifier], task: Task, client: "Client", stage: str
) -> Sample | Rejected:
    """Put a candidate before each verifier in turn."""
    for verifier in verifiers:
        outcome = await verifier.verify(candidate, task, client)
        if isinstance(outcome, Refusal):
            return outcome.candidate.rejected(stage, outcome.reason, outcome.detail)
        candidate = outcome
    return candidate.sample(task)


def unusable(
    stage: str, error: str | None, detail: str, provenance: Provenance, parent: Sample | None = None
) -> Rejected:
    """The record of a draft that could not be read or never came."""
    return Rejected(
        stage=stage,
        reason=error or "no answer",
        detail=detail,
        provenance=provenance,
        parent_id=parent.id if parent else None,
    )
