"""Difficulty: solved samples rewritten harder, unsolved ones easier, each verified anew (paper, section 3.3)."""

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from dsrl import prompts
from dsrl.core.component import Many, component
from dsrl.core.digest import digest
from dsrl.core.estimate import Range, share
from dsrl.data.images import images_first, with_placeholders
from dsrl.data.sample import Provenance, Rejected, Sample
from dsrl.forecast import defaults
from dsrl.forecast.offline_clients import DryClient, UnpaidError
from dsrl.forecast.workload import Expectation, Load, Outlook
from dsrl.llm import Endpoint
from dsrl.llm.structured.answer import TEMPLATES
from dsrl.pipeline.stage import Stage
from dsrl.pipeline.state import PipelineState
from dsrl.stages.generate.accept_until import Harvest, Patience, accept_until, hopeless
from dsrl.stages.generate.candidate import Candidate, SampleDraft, Verifier, check_verifiers, unusable, verified
from dsrl.stages.generate.dry_run import Rehearsal, longest_gap, rehearse, spread
from dsrl.stages.generate.forecast import foretold, load, typical
from dsrl.stages.generate.near_duplicates import Near

if TYPE_CHECKING:
    from dsrl.llm import Client
    from dsrl.pipeline.context import Context

Direction = Literal["harder", "easier"]


@component("stages.rewrite")
class Rewrite(Stage):
    """One rewrite a sample; the samples themselves stay in the pool."""

    name: ClassVar[str] = "rewrite"
    inputs = ("definition", "samples", "probe")
    outputs = ("samples",)
    templates: ClassVar[tuple[str, ...]] = ("rewrite", *TEMPLATES)
    excluded_from_key: ClassVar[frozenset[str]] = frozenset({"min_yield", "max_repeats"})
    version: ClassVar[int] = 2

    teacher: Endpoint
    direction: Literal["both", "harder", "easier", "none"] = "both"
    """Which rewrites are made: of the solved samples, of the unsolved ones, of both, or none."""
    temperature: float = Field(default=0.7, ge=0)
    min_yield: float = Field(default=0.02, ge=0, lt=1)
    """Fail once fewer than this share of a hundred rewrites or more is accepted; 0: never."""
    max_repeats: int | None = Field(default=50, ge=1)
    """Fail after so many duplicates in a row; None: never."""
    near_duplicates: float | None = Field(default=None, gt=0, lt=1)
    """Leave out rewrites that share so many word triples with another sample than their own; None: only equal ones."""
    verify: Many[Verifier] = ()
    seed: int = 0

    def check(self) -> None:
        if self.direction != "none":
            check_verifiers(self.name, self.verify)

    def __call__(self, state: PipelineState, context: "Context") -> PipelineState:
        return asyncio.run(self._rewrite(state, context))

    async def _rewrite(self, state: PipelineState, context: "Context") -> PipelineState:
        work = [(sample, way) for sample in state.samples if (way := self._way(sample)) is not None]
        seen = {sample.content_key for sample in state.samples}
        near = Near(self.near_duplicates, state.samples)
        harvest = Harvest(self.name, seen, Patience(self.min_yield, self.max_repeats), near)
        async with context.connect(self.teacher, "teacher") as client:

            async def attempt(number: int) -> Sample | Rejected:
                return await self._attempt(number, *work[number], state, client, near)

            with context.progress.task("rewrite", len(work)) as shown:
                # One more is wanted than there are, so that every sample gets its try.
                await accept_until(len(work) + 1, len(work), self.teacher.window, attempt, harvest, shown)
        if harvest.lost:
            cure = "raise rewrite.temperature; rewrite.direction=none does without; rewrite.min_yield=0 "
            raise hopeless(harvest, len(work), f"{cure}rewrite.max_repeats=null tries them all")
        samples = (*state.samples, *harvest.accepted)
        return state.add(samples=samples, rejected=tuple(harvest.rejected), figures=self._figures(state, work, harvest))

    def _way(self, sample: Sample) -> Direction | None:
        """Solved samples get harder, unsolved ones easier; one that the model never answered is left alone."""
        if sample.probe is None or sample.probe.value is None:
            return None
        way: Direction = "harder" if sample.probe.value == 1.0 else "easier"
        return way if self.direction in ("both", way) else None

    async def _attempt(
        self, number: int, sample: Sample, way: Direction, state: PipelineState, client: "Client", near: Near
    ) -> Sample | Rejected:
        prompt = prompts.render(
            "rewrite",
            task=state.task,
            pattern=None,
            demos=(),
            direction=way,
            input=sample.input,
            answer=sample.solution or sample.answer,
            images=len(sample.images),
        )
        messages = [{"role": "user", "content": images_first(prompt, sample.images)}]
        answer = await client.ask(messages, SampleDraft, index=self.seed, temperature=self.temperature)
        provenance = Provenance(
            teacher=self.teacher.model,
            prompt=digest(prompts.source("rewrite")),
            index=number,
            calls=answer.calls,
            keyword=sample.provenance.keyword,
            passage=sample.provenance.passage,
            demos=(),
        )
        if answer.value is None:
            return unusable(self.name, answer.error, answer.detail, provenance, sample)
        text = with_placeholders(answer.value.input, len(sample.images))
        draft = Candidate(text or answer.value.input, answer.value.output, way, provenance, sample, sample.images)
        if text is None:
            return draft.rejected(self.name, "placeholders", f"not as many as its {len(sample.images)} images")
        if refused := near.refusal(self.name, draft.input, sample.id, provenance):
            return refused
        return await verified(draft, self.verify, state.task, client, self.name)

    @property
    def asks(self) -> bool:
        return self.direction != "none"

    def expect(self, outlook: Outlook) -> Expectation:
        if self.direction == "none":
            return outlook.expects(Load())
        rehearsal = asyncio.run(self._rehearsed(outlook))
        each = foretold(self.name, self.teacher, self.verify, rehearsal, outlook)
        candidates = (self._asked(outlook, rehearsal) + Range.of(-rehearsal.num_whole)).within(0.0)
        made = Range.of(rehearsal.num_accepted) + candidates * each.usable
        left = load(self.teacher, rehearsal, each, candidates, outlook)
        return outlook.expects(left, samples=outlook.samples + made, whole=False)

    async def _rehearsed(self, outlook: Outlook) -> Rehearsal:
        """Rewrites of the samples that are known, on the replies that are there."""
        samples = outlook.state.samples or (typical(outlook),)
        near = Near(self.near_duplicates, outlook.state.samples)
        rehearsal = Rehearsal(seen={sample.content_key for sample in samples}, near=near)
        work = [sample for sample in samples if self._ways(sample)]

        async def attempt(number: int, client: DryClient) -> Sample | Rejected:
            *others, last = self._ways(work[number])
            for way in others:
                try:
                    return await self._attempt(number, work[number], way, outlook.state, client, near)
                except UnpaidError:
                    if client.tally.completions:
                        raise
            return await self._attempt(number, work[number], last, outlook.state, client, near)

        for number, weight in spread(len(work), outlook.limit if outlook.whole else None):
            weight *= outlook.weights.get(work[number].id, 1)
            rehearsal.add(await rehearse(self.teacher, outlook.calls, number, attempt, weight))
            if rehearsal.empty_in_a_row >= longest_gap(self.teacher):
                break
        return rehearsal

    def _ways(self, sample: Sample) -> tuple[Direction, ...]:
        """The rewrites that may be made of a sample: before it is probed, the store knows which one was."""
        if sample.probe is None:
            both: tuple[Direction, ...] = ("harder", "easier")
            return tuple(way for way in both if self.direction in ("both", way))
        way = self._way(sample)
        return (way,) if way else ()

    def _asked(self, outlook: Outlook, rehearsal: Rehearsal) -> Range:
        """Samples that will be rewritten."""
        if self.direction == "both":
            return outlook.samples
        assumed, samples = defaults.SOLVED, outlook.state.samples
        if self.direction == "easier":
            assumed = Range(1 - assumed.high, 1 - assumed.expected, 1 - assumed.low)
        ways = [self._way(sample) for sample in samples if sample.probe is not None]
        begun = rehearsal.num_begun
        if ways:
            return outlook.samples * share(len(ways) - ways.count(None), len(ways), assumed.expected, weight=1.0)
        return outlook.samples * (share(begun, len(samples), assumed.expected, weight=1.0) if begun else assumed)

    def _figures(
        self, state: PipelineState, work: list[tuple[Sample, Direction]], harvest: Harvest
    ) -> dict[str, object]:
        asked = Counter(way for _, way in work)
        made = Counter(sample.origin for sample in harvest.accepted)
        return {
            "rows": {"in": len(state.samples), "out": len(state.samples) + len(harvest.accepted)},
            "harder": made["harder"],
            "easier": made["easier"],
            "asked": {"harder": asked["harder"], "easier": asked["easier"]},
        }
