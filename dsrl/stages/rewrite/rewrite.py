"""Difficulty adaptation: solved samples rewritten harder, unsolved ones easier, each verified (paper, section 3.3)."""

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from dsrl import prompts
from dsrl.core.component import Many, component
from dsrl.data.sample import Rejected, Sample
from dsrl.data.task import Task
from dsrl.forecast import defaults
from dsrl.forecast.estimate import Range, share
from dsrl.forecast.offline_clients import CacheOnlyClient, NotCachedError
from dsrl.forecast.workload import ForecastState, StageForecast, Workload
from dsrl.llm import Endpoint
from dsrl.llm.structured.answer import TEMPLATES
from dsrl.pipeline.stage import Stage
from dsrl.pipeline.state import PipelineState
from dsrl.stages.generate.accept_until import OrderedResults, StopRule, accept_until
from dsrl.stages.generate.candidate import DraftPrompt, Verifier, check_verifiers, draft_and_verify
from dsrl.stages.generate.dry_run import DryRun, max_gap, spread, try_candidate
from dsrl.stages.generate.duplicates import DuplicateFilter
from dsrl.stages.generate.forecast import estimate_cost, placeholder_sample, remaining_workload

if TYPE_CHECKING:
    from dsrl.llm import Client
    from dsrl.pipeline.context import Context

Direction = Literal["harder", "easier"]


@component("stages.rewrite")
class Rewrite(Stage):
    """One rewrite per sample; the samples themselves stay in the pool."""

    name: ClassVar[str] = "rewrite"
    inputs = ("definition", "samples", "probe")
    outputs = ("samples",)
    templates: ClassVar[tuple[str, ...]] = ("rewrite", *TEMPLATES)
    excluded_from_key: ClassVar[frozenset[str]] = frozenset({"min_yield", "max_repeats"})
    version: ClassVar[int] = 2

    teacher: Endpoint
    direction: Literal["both", "harder", "easier", "none"] = "both"
    """`harder` rewrites the solved samples, `easier` the unsolved ones."""
    temperature: float = Field(default=0.7, ge=0)
    min_yield: float = Field(default=0.02, ge=0, lt=1)
    """Fail if fewer than this share of a hundred rewrites or more is accepted. 0: never."""
    max_repeats: int | None = Field(default=50, ge=1)
    """Fail after this many duplicates in a row. None: never."""
    near_duplicates: float | None = Field(default=None, gt=0, lt=1)
    """Reject rewrites whose word triples are this similar to those of a sample other than their own. None: only equal
    inputs are rejected."""
    verify: Many[Verifier] = ()
    seed: int = 0

    def check(self) -> None:
        if self.direction != "none":
            check_verifiers(self.name, self.verify)

    def __call__(self, state: PipelineState, context: "Context") -> PipelineState:
        return asyncio.run(self._rewrite(state, context))

    async def _rewrite(self, state: PipelineState, context: "Context") -> PipelineState:
        work = [(sample, direction) for sample in state.samples if (direction := self._direction(sample)) is not None]
        duplicates = DuplicateFilter(self.near_duplicates, samples=state.samples)
        results = OrderedResults(self.name, duplicates, StopRule(self.min_yield, self.max_repeats))
        async with context.connect(self.teacher, "teacher") as client:

            async def attempt(number: int) -> Sample | Rejected:
                return await self._attempt(number, *work[number], state, client, duplicates)

            with context.progress.task("rewrite", len(work)) as progress:
                # One more is wanted than there are, so that every sample gets its attempt.
                await accept_until(len(work) + 1, len(work), self.teacher.window, attempt, results, progress)
        if results.stop_reason:
            raise results.failure(
                len(work),
                "raise rewrite.temperature; rewrite.direction=none goes on without rewrites; rewrite.min_yield=0 "
                "rewrite.max_repeats=null tries them all",
            )
        samples = (*state.samples, *results.accepted)
        asked = Counter(direction for _, direction in work)
        accepted = Counter(sample.origin for sample in results.accepted)
        figures = {
            "rows": {"in": len(state.samples), "out": len(samples)},
            "harder": accepted["harder"],
            "easier": accepted["easier"],
            "asked": {"harder": asked["harder"], "easier": asked["easier"]},
        }
        return state.add(samples=samples, rejected=tuple(results.rejected), figures=figures)

    def _direction(self, sample: Sample) -> Direction | None:
        """Solved samples get harder, unsolved ones easier; without a probe result a sample is left alone."""
        if sample.probe is None or sample.probe.value is None:
            return None
        direction: Direction = "harder" if sample.probe.value == 1.0 else "easier"
        return direction if self.direction in ("both", direction) else None

    async def _attempt(
        self,
        number: int,
        sample: Sample,
        direction: Direction,
        state: PipelineState,
        client: "Client",
        duplicates: DuplicateFilter,
    ) -> Sample | Rejected:
        """Rewrite one sample."""
        text = prompts.render(
            "rewrite",
            task=state.task,
            pattern=None,
            demos=(),
            direction=direction,
            input=sample.input,
            answer=sample.solution or sample.answer,
            images=len(sample.images),
        )
        prompt = DraftPrompt(
            text,
            number,
            keyword=sample.provenance.keyword,
            passage=sample.provenance.passage,
            origin=direction,
            parent=sample,
            images=sample.images,
        )
        return await draft_and_verify(self, prompt, state.task, client, duplicates)

    @property
    def prompted_endpoint(self) -> Endpoint | None:
        return None if self.direction == "none" else self.teacher

    def shows_images(self, task: Task, *, in_samples: bool) -> bool:  # noqa: ARG002
        return in_samples

    def forecast(self, before: ForecastState) -> StageForecast:
        if self.direction == "none":
            return before.forecast(Workload())
        dry_run = asyncio.run(self._dry_run(before))
        cost = estimate_cost(self.name, self.teacher, self.verify, dry_run, before)
        candidates = (self._asked(before, dry_run) + Range.of(-dry_run.num_complete)).within(0.0)
        made = Range.of(dry_run.num_accepted) + candidates * cost.usable
        workload = remaining_workload(self.teacher, dry_run, cost, candidates, before)
        return before.forecast(workload, samples=before.samples + made, whole=False)

    async def _dry_run(self, before: ForecastState) -> DryRun:
        """Rewrites of the known samples, on cached replies."""
        samples = before.state.samples or (placeholder_sample(before),)
        dry_run = DryRun(DuplicateFilter(self.near_duplicates, samples=samples))
        work = [sample for sample in samples if self._directions(sample)]

        async def attempt(number: int, client: CacheOnlyClient) -> Sample | Rejected:
            sample = work[number]
            *others, last = self._directions(sample)
            for direction in others:
                try:
                    return await self._attempt(number, sample, direction, before.state, client, dry_run.duplicates)
                except NotCachedError:
                    if client.usage.completions:
                        raise
            return await self._attempt(number, sample, last, before.state, client, dry_run.duplicates)

        for number, weight in spread(len(work), before.limit if before.whole else None):
            weight *= before.weights.get(work[number].id, 1)
            dry_run.add(await try_candidate(self.teacher, before.reply_cache, number, attempt, weight))
            if dry_run.empty_in_a_row >= max_gap(self.teacher):
                break
        return dry_run

    def _directions(self, sample: Sample) -> tuple[Direction, ...]:
        """The rewrites that may be made of a sample: before it is probed, the cache tells which one was."""
        if sample.probe is None:
            both: tuple[Direction, ...] = ("harder", "easier")
            return tuple(direction for direction in both if self.direction in ("both", direction))
        direction = self._direction(sample)
        return (direction,) if direction else ()

    def _asked(self, before: ForecastState, dry_run: DryRun) -> Range:
        """Samples that will be rewritten."""
        if self.direction == "both":
            return before.samples
        assumed, samples = defaults.SOLVED, before.state.samples
        if self.direction == "easier":
            assumed = Range(1 - assumed.high, 1 - assumed.expected, 1 - assumed.low)
        known = [self._direction(sample) for sample in samples if sample.probe is not None]
        begun = dry_run.num_begun
        if known:
            return before.samples * share(len(known) - known.count(None), len(known), assumed.expected, weight=1.0)
        return before.samples * (share(begun, len(samples), assumed.expected, weight=1.0) if begun else assumed)
