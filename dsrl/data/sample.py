"""What flows through the pipeline: samples, passages, counts. Frozen and strict; None means not yet known."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, Protocol

from dsrl.core.component import Many, record
from dsrl.core.digest import content_mark, digest

Origin = Literal["seed", "initial", "harder", "easier"]


@record
class Message:
    """One turn of a conversation; the text may hold `<image>` placeholders, as many as the sample has images."""

    role: Literal["system", "user", "assistant"]
    content: str


@record
class Image:
    """A picture in the store, as every model sees it."""

    digest: str
    """Sha256 of the file that every model sees."""
    path: str
    """Relative to the folder `images` of the store."""
    width: int
    height: int


@record
class Votes:
    """The teacher's own answers to a sample, clustered by the grader's `same`."""

    counts: dict[str, int]
    """Answer -> votes; the answer is the spelling that came first in its cluster."""
    asked: int
    """Answers asked for before the vote stopped."""
    planned: int
    """Answers that a full vote would have asked for."""
    unparsable: int
    """Replies without a readable answer: they count against every answer."""
    failed: int
    """Calls without a reply: missing data, asked again in the next run."""
    share: float
    """Votes for the winner over those planned (failed ones apart); a lower bound where `censored`."""
    margin: float
    """Winner's lead over the runner-up by the votes counted, as a share of those planned (failed ones apart)."""
    censored: bool
    """True where the vote stopped early, because nothing could change or the winner was far ahead."""
    generator_agrees: bool | None = None
    """Whether the answer that the writer of the sample gave is the winner; recorded, not counted."""


@record
class Rate:
    """How often a model solves a sample. Failed and truncated rollouts are counted as themselves."""

    model: str
    """Fingerprint of the model that answered."""
    num_rollouts: int
    """Replies asked for."""
    num_valid: int
    """Replies that came: right or wrong, truncated ones among them (of `PassCount`: without them)."""
    num_correct: int
    num_error: int
    """Calls without a reply: neither right nor wrong."""
    num_truncated: int
    """Replies cut at the token limit; wrong unless they hold a readable right answer (of `PassCount`: neither)."""
    temperature: float
    grader: str
    """Digest of the grader; rates of different graders aren't compared."""
    censored: bool = False
    """True where fewer replies were drawn than for others, because the sample could no longer be selected
    (`score=sequential`)."""

    @property
    def value(self) -> float | None:
        """num_correct / num_valid, or None when no reply came."""
        return self.num_correct / self.num_valid if self.num_valid else None


@record
class Verdict:
    """What one verifier said of a candidate."""

    verifier: str
    accepted: bool
    reason: str = ""


@record
class Match:
    """A test item that a text gives away."""

    source: str
    """`test`, or the path of a further set of `task.contamination.also`."""
    item: int
    """Position in that set, from 0."""
    kind: str
    """`same`, `whole`, `run`, `most`, `renamed` or `reworded`: the surest rule that finds it (docs/clean.md)."""
    size: int
    """Words in a row that the rule looks at; 0 for `same` and `reworded`."""
    share: float
    """Of the item's runs of that size, or of the weight of its words, those found."""
    text: str
    """The longest run of words that both have, as the sample writes it."""


@record
class Provenance:
    """Where a sample came from: enough to show its passage, prompt and raw replies again."""

    teacher: str | None = None
    prompt: str | None = None
    """Digest of the prompt template's text."""
    index: int | None = None
    """Number of the candidate; with the seed it decides everything else."""
    keyword: str | None = None
    passage: str | None = None
    """Passage id, whose record holds source and offset."""
    demos: Many[int] = ()
    """Positions of the demos shown, in the task's list."""
    calls: Many[str] = ()
    """`<request digest>:<index>` of every paid reply behind this sample: writing first, then votes."""


@record
class Passage:
    """A piece of a corpus."""

    id: str
    text: str
    source: str
    """Corpus name and document id."""
    offset: int
    """Where the passage starts in its document, in characters."""
    keyword: str
    """The query that found it first."""
    rank: int
    """Its place among that query's hits, from 0."""
    score: float
    """BM25 score of that hit."""


@record
class Sample:
    """One question with its answer, and all that is known about it."""

    id: str
    """Digest of task, messages and image digests: equal content, equal id."""
    task: str
    messages: Many[Message]
    """The task's input, without the output instruction (that is added by `Task.prompt`)."""
    images: Many[Image] = ()
    answer: str
    """Canonical answer: voted by the teacher, or gold for a seed."""
    solution: str | None = None
    """A worked answer in the task's output format whose result is `answer`, if there is one."""
    parent_id: str | None = None
    """The sample that this one rewrites."""
    source_id: str
    """The first ancestor's id."""
    generation: int = 0
    """Number of rewrites since that ancestor."""
    origin: Origin
    votes: Votes | None = None
    """Filled by `generate` and `rewrite`."""
    probe: Rate | None = None
    """One greedy rollout of the base model; filled by `probe`."""
    score: Rate | None = None
    """Pass rate over many rollouts; filled by `score`."""
    verdicts: Many[Verdict] = ()
    """Filled by `generate` and `rewrite`."""
    provenance: Provenance = Provenance()
    matches: Many[Match] = ()
    """Test items that the input gives away; filled by `decontaminate`."""

    @property
    def input(self) -> str:
        """The text of the last user turn."""
        return next(message.content for message in reversed(self.messages) if message.role == "user")

    @property
    def mark(self) -> str:
        """Equal for samples of the same words and pictures."""
        return content_mark(self.input, [image.digest for image in self.images])

    def replace(self, **changes: object) -> "Sample":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


class Rejectable(Protocol):
    """What a rejection records of a sample, or of a candidate that has not become one."""

    @property
    def input(self) -> str: ...
    @property
    def images(self) -> tuple[Image, ...]: ...
    @property
    def answer(self) -> str | None: ...
    @property
    def parent_id(self) -> str | None: ...
    @property
    def votes(self) -> Votes | None: ...
    @property
    def provenance(self) -> Provenance: ...


@record
class Rejected:
    """A candidate that did not become a sample, and why."""

    stage: str
    reason: str
    """Short and countable, such as `no majority`."""
    detail: str = ""
    input: str | None = None
    images: Many[Image] = ()
    answer: str | None = None
    parent_id: str | None = None
    votes: Votes | None = None
    provenance: Provenance = Provenance()
    matches: Many[Match] = ()
    """Test items for whose sake it was taken out."""

    @classmethod
    def of(cls, subject: Rejectable, stage: str, reason: str, detail: str = "") -> "Rejected":
        """The record of a sample or candidate that `stage` drops."""
        return cls(
            stage=stage,
            reason=reason,
            detail=detail,
            input=subject.input,
            images=subject.images,
            answer=subject.answer,
            parent_id=subject.parent_id,
            votes=subject.votes,
            provenance=subject.provenance,
        )


def sample_id(task: str, messages: tuple[Message, ...], images: tuple[Image, ...] = ()) -> str:
    """The id of a sample with this content."""
    return digest([task, [[turn.role, turn.content] for turn in messages], [image.digest for image in images]])


def new_sample(
    task: str,
    text: str,
    answer: str,
    origin: Origin,
    *,
    images: Sequence[Image] = (),
    parent: Sample | None = None,
    solution: str | None = None,
    votes: Votes | None = None,
    verdicts: tuple[Verdict, ...] = (),
    provenance: Provenance | None = None,
) -> Sample:
    """A sample from one user message, its ids and lineage filled in."""
    messages = (Message(role="user", content=text),)
    identifier = sample_id(task, messages, tuple(images))
    return Sample(
        id=identifier,
        task=task,
        messages=messages,
        images=tuple(images),
        answer=answer,
        solution=solution,
        parent_id=parent.id if parent else None,
        source_id=parent.source_id if parent else identifier,
        generation=parent.generation + 1 if parent else 0,
        origin=origin,
        votes=votes,
        verdicts=verdicts,
        provenance=provenance or Provenance(),
    )
