"""The records that flow through the pipeline: frozen and strict; None means not known yet."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, Protocol

from dsrl.core.component import Many, record
from dsrl.core.digest import digest, text_digest

Origin = Literal["seed", "initial", "harder", "easier"]
IMAGE = "<image>"
"""Placeholder for the next image of a text. In a text without images it is ordinary text."""


@record
class Message:
    """One turn of a conversation. Its text has one `<image>` placeholder for each image of the sample."""

    role: Literal["system", "user", "assistant"]
    content: str


@record
class Image:
    """An image in the store, preprocessed as every model sees it."""

    digest: str
    """Sha256 of the preprocessed file."""
    path: str
    """Relative to `images/` in the store."""
    width: int
    height: int
    pixels: str | None = None
    """Digest of the decoded RGB pixels, equal for all lossless encodings; None in tables from before it was stored."""


@record
class Votes:
    """The teacher's own answers to a sample, clustered by the grader's `same`."""

    counts: dict[str, int]
    """Answer -> votes. A cluster is named by the spelling that came first."""
    asked: int
    """Answers requested before the vote stopped."""
    planned: int
    """Answers that a full vote would have requested."""
    unparsable: int
    """Replies without a parsable answer; they count against every answer."""
    failed: int
    """Calls without a reply: missing data, requested again in the next run."""
    share: float
    """Votes for the winner over planned minus failed ones; a lower bound if `censored`."""
    margin: float
    """The winner's lead over the runner-up, over planned minus failed votes."""
    censored: bool
    """True if the vote stopped early: the winner could not change, or was far ahead."""
    generator_agrees: bool | None = None
    """Whether the answer given with the sample is the winner; recorded, not counted as a vote."""


@record
class Rate:
    """Pass rate of a model on a sample. Failed and truncated rollouts are counted separately."""

    model: str
    """Fingerprint of the model that answered."""
    num_rollouts: int
    """Replies requested."""
    num_valid: int
    """Replies received, right or wrong; truncated ones count, except under `PassCount`."""
    num_correct: int
    num_error: int
    """Calls without a reply: neither right nor wrong."""
    num_truncated: int
    """Replies cut at the token limit: wrong unless they contain a parsable right answer; under `PassCount`, neither."""
    temperature: float
    grader: str
    """Digest of the grader; rates of different graders are not comparable."""
    censored: bool = False
    """True if sampling stopped early because the sample could no longer be selected (`score=sequential`)."""

    @property
    def value(self) -> float | None:
        """num_correct / num_valid, or None without a valid reply."""
        return self.num_correct / self.num_valid if self.num_valid else None


@record
class Verdict:
    """One verifier's decision on a candidate."""

    verifier: str
    accepted: bool
    reason: str = ""


@record
class Match:
    """A test item that a text reveals."""

    source: str
    """`test`, or the path of a set in `task.contamination.also`."""
    item: int
    """Position in that set, from 0."""
    kind: str
    """`same`, `whole`, `run`, `most`, `renamed` or `reworded`: the most certain rule that matches (docs/clean.md)."""
    size: int
    """n of the rule's n-grams; 0 for `same` and `reworded`."""
    share: float
    """Share found of the item's n-grams, or of the weight of its words."""
    text: str
    """The longest run of words in both, as the sample writes it."""


@record
class Provenance:
    """Where a sample came from: enough to find its passage, prompt and raw replies again."""

    teacher: str | None = None
    prompt: str | None = None
    """Digest of the prompt template's text."""
    index: int | None = None
    """Number of the candidate; with the seed it determines everything else."""
    keyword: str | None = None
    passage: str | None = None
    """Id of the passage."""
    demos: Many[int] = ()
    """Positions in the task's demos of those shown."""
    calls: Many[str] = ()
    """`<request digest>:<index>` of every paid reply behind this sample: generation first, then votes."""


@record
class Passage:
    """A chunk of a corpus document."""

    id: str
    text: str
    source: str
    """Corpus name and document id."""
    offset: int
    """Start in its document, in characters."""
    keyword: str
    """The query that found it first."""
    rank: int
    """Position among that query's hits, from 0."""
    score: float
    """BM25 score of that hit."""


@record
class Sample:
    """One question with its answer and everything known about it."""

    id: str
    """Digest of task, messages and image digests."""
    task: str
    messages: Many[Message]
    """The task's input, without the output instruction, which `Task.prompt` adds."""
    images: Many[Image] = ()
    answer: str
    """Canonical answer: the teacher's majority vote, or the gold answer of a seed."""
    solution: str | None = None
    """A worked solution in the task's output format that ends in `answer`."""
    parent_id: str | None = None
    """Id of the sample that this one rewrites."""
    source_id: str
    """Id of the first ancestor."""
    generation: int = 0
    """Number of rewrites since the first ancestor."""
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
    """Test items that the input reveals; filled by `decontaminate`."""

    @property
    def input(self) -> str:
        """The text of the last user turn."""
        return next(message.content for message in reversed(self.messages) if message.role == "user")

    @property
    def content_key(self) -> str:
        """Equal for samples with the same words and images."""
        return content_key(self.input, self.images)

    def replace(self, **changes: object) -> "Sample":
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
    """A rejected candidate and the reason."""

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
    """Test items that it reveals."""

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


def content_key(text: str, images: Sequence[Image]) -> str:
    """The key by which questions are compared across data sets: their words, and the pixels of their images in order.
    Encoding of the images and place of the placeholders don't matter."""
    if not images:
        return text_digest(text)
    return digest([text_digest(text.replace(IMAGE, " ")), [image.pixels or image.digest for image in images]])


def sample_id(task: str, messages: tuple[Message, ...], images: tuple[Image, ...] = ()) -> str:
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
    """Create a sample from one user message, with its ids and lineage."""
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
