"""What all ways of writing new samples share: candidates in the order of their numbers until enough are accepted."""

import asyncio
import dataclasses
import itertools
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dsrl import prompts
from dsrl.core.component import Many, component
from dsrl.core.digest import digest
from dsrl.core.errors import StageFailed
from dsrl.core.estimate import Range
from dsrl.data.images import images_first, with_placeholders
from dsrl.data.images.preprocess import UnusableImage
from dsrl.data.sample import Image, Provenance, Rejected, Sample
from dsrl.forecast.offline_clients import DryClient, UnpaidError
from dsrl.forecast.workload import CHARACTERS_PER_TOKEN, Expectation, Load, Outlook
from dsrl.llm import Endpoint
from dsrl.pipeline.stage import Stage
from dsrl.pipeline.state import PipelineState
from dsrl.stages.generate.accept_until import Harvest, Novelty, Patience, accept_until, hopeless
from dsrl.stages.generate.candidate import Candidate, SampleDraft, Verifier, check_verifiers, unusable, verified
from dsrl.stages.generate.dry_run import Rehearsal, longest_gap, rehearse, spread
from dsrl.stages.generate.forecast import foretold, load
from dsrl.stages.generate.near_duplicates import Near

if TYPE_CHECKING:
    from dsrl.llm import Client
    from dsrl.pipeline.context import Context

Earlier = Callable[[int], Awaitable[Sequence[Sample]]]
"""The accepted samples among the candidates below a number, once all of these are settled."""


@dataclass(frozen=True)
class Desk:
    """What a candidate is written from."""

    state: PipelineState
    client: "Client"
    material: Any
    """What the stage asked for beforehand, once for all candidates."""
    earlier: Earlier
    near: Near
    """What was accepted so far."""
    pictures: Sequence[Image] = ()
    """Candidate i is asked for about picture i, from the first again when they run out."""


@component(None)
class TeacherGenerator(Stage):
    """Writes candidates until `n` are accepted. Candidate i depends only on (seed, i), and on earlier accepted ones
    where a subclass shows these. A subclass says what is asked for beforehand and how one candidate is written; the
    first of its templates is that of the draft."""

    name: ClassVar[str] = "generate"
    outputs = ("samples",)
    excluded_from_key: ClassVar[frozenset[str]] = frozenset({"min_yield", "max_repeats"})
    place: ClassVar[str] = "generate"
    """Its key in the config of the pipeline that ships."""
    drafts: ClassVar[int] = 1
    """Requests before the verifiers are asked."""

    teacher: Endpoint
    n: int = Field(ge=1)
    max_candidates: int | None = Field(default=None, ge=1)
    """Give up after so many candidates; None: four times `n`."""
    min_yield: float = Field(default=0.02, ge=0, lt=1)
    """Fail once fewer than this share of a hundred candidates or more is accepted; 0: never."""
    max_repeats: int | None = Field(default=50, ge=1)
    """Fail after so many duplicates in a row; None: never."""
    near_duplicates: float | None = Field(default=None, gt=0, lt=1)
    """Leave out candidates of which so large a share of word triples is that of an accepted one (Jaccard similarity,
    estimated by MinHash); None: only equal inputs."""
    temperature: float = Field(default=0.7, ge=0)
    verify: Many[Verifier] = ()
    """Verifiers, asked in this order."""
    seed: int = 0

    @abstractmethod
    async def attempt(self, number: int, desk: Desk) -> Sample | Rejected:
        """Write candidate `number` and put it before the verifiers."""

    async def draft(self, number: int, desk: Desk, prompt: str, **origin: Any) -> Sample | Rejected:
        """Have candidate `number` written and put it before the verifiers. `origin`: what its provenance says besides;
        `calls` are those that came before."""
        images = desk.pictures[number % len(desk.pictures) :][:1] if desk.pictures else ()
        messages = [{"role": "user", "content": images_first(prompt, images)}]
        answer = await desk.client.ask(messages, SampleDraft, index=self.seed, temperature=self.temperature)
        calls = (*origin.pop("calls", ()), *answer.calls)
        provenance = Provenance(
            teacher=self.teacher.model,
            prompt=digest(prompts.source(self.templates[0])),
            index=number,
            calls=calls,
            **origin,
        )
        if answer.value is None:
            return unusable(self.name, answer.error, answer.detail, provenance)
        if not images and (refused := desk.near.refusal(self.name, answer.value.input, None, provenance)):
            return refused
        text = with_placeholders(answer.value.input, len(images))
        written = Candidate(
            text or answer.value.input, answer.value.output, "initial", provenance, images=tuple(images)
        )
        if text is None:
            return written.rejected(self.name, "placeholders", "more of <image> than its one picture")
        return await verified(written, self.verify, desk.state.task, desk.client, self.name)

    async def prepare(self, state: PipelineState, client: "Client", number: int) -> Any:  # noqa: ARG002
        """Piece `number` of what is asked for beforehand; there are `pieces` of them. Raises `StageFailed`."""
        return None

    def pieces(self, state: PipelineState) -> int:  # noqa: ARG002
        """Requests that are made once, before the first candidate."""
        return 0

    def imagined(self, state: PipelineState) -> tuple[Any, Range]:  # noqa: ARG002
        """A piece of usual size, and the tokens of its reply, for forecasts."""
        return None, Range.of(0.0)

    def assembled(self, state: PipelineState, pieces: Sequence[Any]) -> Any:  # noqa: ARG002
        """The material out of its pieces."""
        return pieces[0] if pieces else None

    def novelty(self, state: PipelineState) -> Novelty | None:  # noqa: ARG002
        """What decides, besides equality, whether a sample is new."""
        return None

    def told(self, material: Any) -> dict[str, Any]:  # noqa: ARG002
        """Figures about the material."""
        return {}

    @property
    def most(self) -> int:
        """Candidates after which it gives up."""
        return self.max_candidates or 4 * self.n

    def check(self) -> None:
        check_verifiers(self.place, self.verify)

    def __call__(self, state: PipelineState, context: "Context") -> PipelineState:
        return asyncio.run(self._write(state, context))

    async def _write(self, state: PipelineState, context: "Context") -> PipelineState:
        patience, near = Patience(self.min_yield, self.max_repeats), Near(self.near_duplicates)
        pictures = await asyncio.to_thread(pool, state, self.seed, context)
        harvest = Harvest(self.name, patience=patience, near=near, novelty=self.novelty(state))
        async with context.connect(self.teacher, "teacher") as client:
            work = (self.prepare(state, client, number) for number in range(self.pieces(state)))
            material = self.assembled(state, await asyncio.gather(*work))
            desk = Desk(state, client, material, harvest.before, near, pictures)
            with context.progress.task(self.place, self.n) as shown:
                await accept_until(
                    self.n, self.most, self.teacher.window, lambda i: self.attempt(i, desk), harvest, shown
                )
        self._check(harvest, context)
        rows = {"in": harvest.settled, "out": len(harvest.accepted)}
        return state.add(
            samples=tuple(harvest.accepted),
            rejected=tuple(harvest.rejected),
            figures={"rows": rows, **self.told(desk.material)},
        )

    def _check(self, harvest: Harvest, context: "Context") -> None:
        """Too few is said; none at all, or a teacher who has nothing more to give, is a failure."""
        accepted = len(harvest.accepted)
        if harvest.lost:
            cure = f"raise {self.place}.temperature, or give more passages or demos"
            if accepted:
                knobs = {"min_yield": 0, "max_repeats": "null", "max_candidates": harvest.settled}
                dials = " ".join(f"{self.place}.{name}={value}" for name, value in knobs.items())
                cure += f"; {dials} goes on with the {accepted} there are"
            raise hopeless(harvest, self.n, cure)
        if accepted == self.n:
            return
        text = f"{self.place}: {accepted} of {self.n} samples after {self.most} candidates ({harvest.reasons_text})"
        if not accepted:
            raise StageFailed(
                text,
                got=harvest.example,
                next_step=f"change the task or the teacher, or raise {self.place}.max_candidates",
            )
        context.progress.warn(text)

    def pilot(self, count: int) -> "TeacherGenerator":
        """The first candidates are those of the whole run, so their replies are too."""
        return dataclasses.replace(self, n=min(count, self.n))

    def expect(self, outlook: Outlook) -> Expectation:
        rehearsal, asked = asyncio.run(self._rehearsed(outlook))
        each = foretold(self.name, self.teacher, self.verify, rehearsal, outlook, self.drafts)
        missing = Range.of(max(0, self.n - rehearsal.num_accepted))
        candidates = (missing / each.usable).within(0.0, self.most - rehearsal.num_whole)
        made = Range.of(rehearsal.num_accepted) + candidates * each.usable
        return outlook.expects(
            asked + load(self.teacher, rehearsal, each, candidates, outlook),
            state=outlook.state.add(samples=tuple(rehearsal.accepted)),
            samples=made.within(most=self.n),
            whole=len(rehearsal.accepted) == self.n,
            weights=rehearsal.weights,
        )

    async def _rehearsed(self, outlook: Outlook) -> tuple[Rehearsal, Load]:
        """Candidates on the replies that are there, and what is still to be paid for the material."""
        material, asked = await self._foretold_material(outlook)
        calls = None if asked.requests.high else outlook.calls  # every prompt holds the material
        rehearsal = Rehearsal(near=Near(self.near_duplicates), novelty=self.novelty(outlook.state))

        async def attempt(number: int, client: DryClient) -> Sample | Rejected:
            return await self.attempt(number, Desk(outlook.state, client, material, rehearsal.before, rehearsal.near))

        for number, weight in itertools.chain(spread(self.n, outlook.limit), self._further(outlook.limit)):
            if rehearsal.hopeful >= self.n:
                break
            rehearsal.add(await rehearse(self.teacher, calls, number, attempt, weight))
            if rehearsal.empty_in_a_row >= longest_gap(self.teacher):
                break
        return rehearsal, asked

    def _further(self, limit: int | None) -> Iterator[tuple[int, int]]:
        """Candidates beyond the first n, which take the place of rejected ones."""
        last = self.most if limit is None else min(self.most, self.n + limit // 2)
        return ((number, 1) for number in range(self.n, last))

    async def _foretold_material(self, outlook: Outlook) -> tuple[Any, Load]:
        """The material as far as it is in the store, else of usual length, and what it costs to ask for the rest."""
        piece, written = self.imagined(outlook.state)
        found, asked = [], Load(self.teacher)
        for number in range(self.pieces(outlook.state)):
            client = DryClient(self.teacher, outlook.calls)
            try:
                found.append(await self.prepare(outlook.state, client, number))
                asked += Load(self.teacher, held=client.tally.held)
            except UnpaidError:
                found.append(piece)
                read = Range.of(client.tally.prompt_characters / CHARACTERS_PER_TOKEN)
                asked += Load(self.teacher, requests=Range.of(1), input_tokens=read, output_tokens=written)
        return self.assembled(outlook.state, found), asked


def pool(state: PipelineState, seed: int, context: "Context") -> Sequence[Image]:
    """The task's pictures in seeded order, without those that can't be shown. Raises `StageFailed` where none can."""
    if state.task.pictures is None:
        return ()
    found = state.task.pictures.images(context.gallery(state.task))
    fit = {image.digest: image for image in found if isinstance(image, Image)}
    if faults := [one for one in found if isinstance(one, UnusableImage)]:
        told = f"task.pictures: {len(faults)} of {len(found)} can't be shown, such as {faults[0].reason}: {faults[0]}"
        if not fit:
            raise StageFailed(told, next_step="mend them, or give another task.pictures.path")
        context.progress.warn(told)
    return sorted(fit.values(), key=lambda image: digest([seed, "pictures", image.digest]))
