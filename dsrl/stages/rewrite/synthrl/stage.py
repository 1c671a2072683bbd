"""SynthRL: harder questions with the same answer, accepted by the target model's own replies (paper, algorithm 1)."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import BaseModel, Field, StringConstraints

from dsrl import prompts
from dsrl.core.component import Many, component
from dsrl.core.digest import digest
from dsrl.core.errors import UserError
from dsrl.data.images import IMAGE, images_first
from dsrl.data.images.prompt import resolve_placeholders
from dsrl.data.sample import Provenance, Rejected, Sample, content_key
from dsrl.data.task import Task
from dsrl.forecast.workload import ForecastState, StageForecast
from dsrl.llm import Endpoint
from dsrl.llm.client import gather_or_cancel
from dsrl.llm.structured.answer import TEMPLATES
from dsrl.models.rollout.protocols import PassCounter
from dsrl.pipeline.stage import Stage
from dsrl.pipeline.state import PipelineState
from dsrl.stages.generate.candidate import AsksTeacher, Candidate, Refusal, Verifier, parse_failure
from dsrl.stages.rewrite.synthrl.forecast import forecast_variants
from dsrl.stages.rewrite.synthrl.image_needed import ImageNeeded
from dsrl.stages.rewrite.synthrl.pass_band import BatchVerifier, describe_rate
from dsrl.stages.rewrite.synthrl.question_checks import check_question
from dsrl.stages.rewrite.synthrl.seed_attempts import (
    Chain,
    SeedAttempts,
    Stop,
    check_yield,
    describe_unsuitable_seeds,
    variant_figures,
)

if TYPE_CHECKING:
    from dsrl.llm import Client
    from dsrl.pipeline.context import Context

TEMPLATE = "harder"
PARSED, NEW = "a readable question", "a new one that hides its answer"
"""Names in the funnel of what an attempt must be before the verifiers run."""


class QuestionDraft(BaseModel):  # sent with the request: another name or docstring would change its digest
    """What the writer is asked for. It may be as many paragraphs long as it likes."""

    question: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


@component("stages.rewrite.synthrl")
class HarderVariants(Stage):
    """Up to `attempts` rewrites of every seed that the target mostly solves; at most one variant per seed is kept. The
    writer sees the question but never the answer, and the variant inherits the seed's answer.

    Attempt k is made for all open seeds together, so that a local target answers in batches; it depends only on the
    seeds and their numbers. Kept variants are counted once more, with replies that no decision has used: that is their
    pass rate, because the count by which a variant was accepted is low by selection.
    """

    name: ClassVar[str] = "rewrite"
    inputs = ("definition", "format", "base", "samples", "score")
    outputs = ("samples",)
    templates: ClassVar[tuple[str, ...]] = (TEMPLATE, "quality", *TEMPLATES)
    excluded_from_key: ClassVar[frozenset[str]] = frozenset({"min_yield"})
    version: ClassVar[int] = 2

    teacher: Endpoint
    counter: PassCounter
    """Counts the kept variants afresh; the same as for the seeds."""
    min_correct: int = Field(default=12, ge=0)
    """Correct replies, of the counter's `rollouts`, that a seed needs to be rewritten."""
    attempts: int = Field(default=8, ge=1)
    """Rewrites of a seed."""
    stop: Stop = "first"
    """`first`: the first accepted one is kept. `best`: all attempts are made, and the hardest accepted one is kept."""
    chain: Chain = "parent"
    """What the writer is shown: the seed, or the variant that was accepted last."""
    temperature: float = Field(default=1.0, ge=0)
    min_yield: float = Field(default=0.02, ge=0, lt=1)
    """Fail if fewer than this share of a hundred attempts or more is accepted. 0: never."""
    verify: Many[Verifier | BatchVerifier] = ()
    """Verifiers in the order in which they run; the first refusal ends an attempt."""
    seed: int = 0

    def check(self) -> None:
        if self.min_correct > self.counter.rollouts:
            raise UserError(
                "rewrite.min_correct: no seed can reach it",
                got=f"{self.min_correct} of {self.counter.rollouts} rollouts",
                next_step="lower rewrite.min_correct, or raise rollouts",
            )
        if self.stop == "first" and self.chain != "parent":
            raise UserError(
                f"rewrite.chain={self.chain} has no effect with rewrite.stop=first, which ends with what it accepts",
                next_step="give rewrite.stop=best too, or leave chain out",
            )
        counting = [one for one in self.verify if isinstance(one, BatchVerifier) and not isinstance(one, ImageNeeded)]
        if self.stop == "best" and not counting:
            raise UserError(
                "rewrite.stop=best keeps the variant with the lowest pass count, and nothing in `verify` counts",
                next_step="give verify=full, or rewrite.stop=first",
            )

    def __call__(self, state: PipelineState, context: "Context") -> PipelineState:
        seeds = [SeedAttempts(sample) for sample in state.samples if self._is_eligible(sample)]
        if warning := describe_unsuitable_seeds(state.samples, len(seeds), self.counter.rollouts, self.min_correct):
            context.progress.warn(warning)
        seen = {sample.content_key for sample in state.samples}
        attempts, passed = 0, Counter[str]()
        with context.progress.task("rewrite", len(seeds)) as progress:
            for number in range(self.attempts):
                unfinished = [seed for seed in seeds if seed.is_open(self.stop)]
                if not unfinished:
                    break
                attempts += len(unfinished)
                passed += self._attempt(number, unfinished, seen, state, context)
                check_yield(seeds, attempts, self.min_yield)
                progress.set(sum(bool(seed.accepted) for seed in seeds), attempt=number + 1, open=len(unfinished))
        variants, undecided = self._count_afresh(seeds, state, context)
        figures = variant_figures(
            state.samples, seeds, variants, attempts=attempts, stop=self.stop, rollouts=self.counter.rollouts
        )
        figures["funnel"] = [[name, passed[name]] for name in (PARSED, NEW, *self._verifier_names())]
        rejected = [one for seed in seeds for one in seed.rejected]
        for candidate in (one for seed in seeds for one in seed.passed_over(self.stop)):
            detail = describe_rate(candidate.rate) if candidate.rate else ""
            rejected.append(Rejected.of(candidate, self.name, "another variant was kept", detail))
        return state.add(samples=(*state.samples, *variants), rejected=(*rejected, *undecided), figures=figures)

    @property
    def prompted_endpoint(self) -> Endpoint:
        return self.teacher

    def shows_images(self, task: Task, *, in_samples: bool) -> bool:  # noqa: ARG002
        return in_samples

    def forecast(self, before: ForecastState) -> StageForecast:
        return forecast_variants(self, before)

    def _is_eligible(self, sample: Sample) -> bool:
        score = sample.score
        return score is not None and score.num_valid >= self.counter.rollouts and score.num_correct >= self.min_correct

    def _verifier_names(self) -> list[str]:
        """Class names in order; a verifier that occurs again is numbered."""
        names = [type(verifier).__name__ for verifier in self.verify]
        repeats = [names[:place].count(name) for place, name in enumerate(names)]
        return [f"{name} {again + 1}" if again else name for name, again in zip(names, repeats, strict=True)]

    def _attempt(
        self, number: int, seeds: Sequence[SeedAttempts], seen: set[str], state: PipelineState, context: "Context"
    ) -> Counter[str]:
        """One more rewrite of each of these seeds. Returns how many passed each step of the funnel."""
        outcomes = asyncio.run(self._write_all(number, seeds, state, context))
        passed = Counter({PARSED: num_candidates(outcomes)})
        # In the order of seeds: of two equal variants the first one stays.
        outcomes = [self._check(one, seen, state) if isinstance(one, Candidate) else one for one in outcomes]
        passed[NEW] = num_candidates(outcomes)
        for name, verifier in zip(self._verifier_names(), self.verify, strict=True):
            places = [place for place, one in enumerate(outcomes) if isinstance(one, Candidate)]
            candidates = [one for one in outcomes if isinstance(one, Candidate)]
            verified = self._run_verifier(verifier, candidates, state, context)
            for place, one in zip(places, verified, strict=True):
                outcomes[place] = one.to_rejected(self.name) if isinstance(one, Refusal) else one
            passed[name] = num_candidates(outcomes)
        for seed, outcome in zip(seeds, outcomes, strict=True):
            seed.add(outcome)
        return passed

    async def _write_all(
        self, number: int, seeds: Sequence[SeedAttempts], state: PipelineState, context: "Context"
    ) -> list[Candidate | Rejected]:
        async with context.connect(self.teacher, "teacher") as client:
            return await gather_or_cancel(self._write(number, seed, state, client) for seed in seeds)

    async def _write(
        self, number: int, attempts: SeedAttempts, state: PipelineState, client: "Client"
    ) -> Candidate | Rejected:
        """Have the teacher rewrite one seed's question."""
        seed, images = attempts.seed, attempts.seed.images
        question = attempts.shown_question(self.chain)
        prompt = prompts.render(
            TEMPLATE, task=state.task, pattern=None, demos=(), question=question, images=len(images)
        )
        messages = [{"role": "user", "content": images_first(prompt, images)}]
        index = self.seed * self.attempts + number
        answer = await client.ask(messages, QuestionDraft, index=index, temperature=self.temperature)
        provenance = Provenance(
            teacher=self.teacher.model, prompt=digest(prompts.source(TEMPLATE)), index=number, calls=answer.calls
        )
        if answer.value is None:
            return parse_failure(self.name, answer.error, answer.detail, provenance, seed)
        text = answer.value.question
        placed = place_images(text, len(images))
        candidate = Candidate(placed or text, "", "harder", provenance, seed, images, answer=seed.answer)
        if placed is None:
            detail = f"{text.count(IMAGE)} of {IMAGE} for {len(images)} images, or numbers in another order"
            return Rejected.of(candidate, self.name, "placeholders", detail)
        return candidate

    def _check(self, candidate: Candidate, seen: set[str], state: PipelineState) -> Candidate | Rejected:
        """Reject what needs no model to be rejected."""
        if refusal := check_question(candidate, state.task):
            return refusal.to_rejected(self.name)
        mark = content_key(candidate.input, candidate.images)
        if mark in seen:
            return Rejected.of(candidate, self.name, "duplicate", "the same question as an earlier one")
        seen.add(mark)
        return candidate

    def _run_verifier(
        self,
        verifier: Verifier | BatchVerifier,
        candidates: Sequence[Candidate],
        state: PipelineState,
        context: "Context",
    ) -> list[Candidate | Refusal]:
        if isinstance(verifier, BatchVerifier):
            return verifier.verify_all(candidates, state, context) if candidates else []
        endpoint = verifier.teacher if isinstance(verifier, AsksTeacher) else self.teacher

        async def verify_all() -> list[Candidate | Refusal]:
            async with context.connect(endpoint, "teacher") as client:
                return await gather_or_cancel(verifier.verify(one, state.task, client) for one in candidates)

        return asyncio.run(verify_all())

    def _count_afresh(
        self, seeds: Sequence[SeedAttempts], state: PipelineState, context: "Context"
    ) -> tuple[list[Sample], list[Rejected]]:
        """The kept variants with a pass rate of fresh replies, and those for which too few replies came."""
        kept = [one for seed in seeds if (one := seed.kept(self.stop)) is not None]
        samples = [one.to_sample(state.task) for one in kept]
        questions = [one.to_question() for one in kept]
        rates = self.counter.count(questions, state, context, names=[sample.id for sample in samples])
        variants, undecided = [], []
        for candidate, sample, rate in zip(kept, samples, rates, strict=True):
            if rate.num_valid < self.counter.rollouts:
                detail = f"{describe_rate(rate)} when counted anew"
                undecided.append(Rejected.of(candidate, self.name, "undecided", detail))
            else:
                variants.append(sample.replace(score=rate))
        return variants, undecided


def place_images(text: str, num_images: int) -> str | None:
    """The text with one placeholder per image, in the seed's order; None if it shows other images or another order. The
    judge compares both questions beside the same images, so a variant may not reorder them."""
    if num_images == 0:
        return text
    text_and_order = resolve_placeholders(text, num_images)
    if text_and_order is None or text_and_order[1] != tuple(range(num_images)):
        return None
    return text_and_order[0]


def num_candidates(outcomes: Sequence[Candidate | Rejected]) -> int:
    """Attempts that nothing has rejected yet."""
    return sum(isinstance(one, Candidate) for one in outcomes)
