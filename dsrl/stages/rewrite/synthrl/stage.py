"""SynthRL: harder questions with the same answer, accepted by the target model's own replies (paper, algorithm 1)."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, Field, StringConstraints

from dsrl import prompts
from dsrl.core.component import Many, component
from dsrl.core.digest import content_key, digest
from dsrl.core.errors import UserError
from dsrl.data.images import IMAGE, images_first, with_placeholders
from dsrl.data.sample import Provenance, Rejected, Sample
from dsrl.forecast.workload import Expectation, Outlook
from dsrl.llm import Endpoint
from dsrl.llm.client import together
from dsrl.llm.structured.answer import TEMPLATES
from dsrl.models.rollout.protocols import Asked, PassCounter
from dsrl.pipeline.stage import Stage
from dsrl.pipeline.state import PipelineState
from dsrl.stages.generate.candidate import Candidate, Refusal, Verifier, unusable
from dsrl.stages.rewrite.synthrl.figures import NEW, WRITTEN, gates, left, variant_figures
from dsrl.stages.rewrite.synthrl.forecast import foretold
from dsrl.stages.rewrite.synthrl.image_needed import ImageNeeded
from dsrl.stages.rewrite.synthrl.leak_check import at_first_sight
from dsrl.stages.rewrite.synthrl.outcome import about_seeds, check_yield
from dsrl.stages.rewrite.synthrl.pass_band import BatchVerifier, shown
from dsrl.stages.rewrite.synthrl.seed_attempts import Chain, Stop, Trial

if TYPE_CHECKING:
    from dsrl.llm import Client
    from dsrl.pipeline.context import Context

TEMPLATE = "harder"


class QuestionDraft(BaseModel):
    """What the writer is asked for. It may be as many paragraphs long as it likes."""

    question: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


@component("stages.rewrite.synthrl")
class HarderVariants(Stage):
    """Up to `attempts` rewrites of every seed that the target mostly solves; at most one variant a seed is kept. The
    writer sees the question, never the answer, and the variant inherits the seed's.

    Attempt k is made for all open seeds together, so that a local target answers in batches; it depends on the seeds
    and their numbers alone. What is kept is counted once more, with replies that no decision has looked at: that is its
    pass rate, because the count by which it was accepted is low by selection."""

    name: ClassVar[str] = "rewrite"
    inputs = ("definition", "format", "base", "samples", "score")
    outputs = ("samples",)
    templates: ClassVar[tuple[str, ...]] = (TEMPLATE, "quality", *TEMPLATES)
    excluded_from_key: ClassVar[frozenset[str]] = frozenset({"min_yield"})

    teacher: Endpoint
    counter: PassCounter
    """Counts the kept variants anew; the same as for the seeds."""
    min_correct: int = Field(default=12, ge=0)
    """Right replies, of the counter's `rollouts`, that a seed needs to be rewritten."""
    attempts: int = Field(default=8, ge=1)
    """Rewrites of a seed."""
    stop: Stop = "first"
    """`first`: the first accepted one is kept. `best`: all attempts are made, and the hardest accepted one is kept."""
    chain: Chain = "parent"
    """What the writer is shown: the seed, or the variant that was accepted last."""
    temperature: float = Field(default=1.0, ge=0)
    min_yield: float = Field(default=0.02, ge=0, lt=1)
    """Fail once fewer than this share of a hundred attempts or more is accepted; 0: never."""
    verify: Many[Verifier | BatchVerifier] = ()
    """Asked in this order; one that refuses ends an attempt."""
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
        counts = [one for one in self.verify if isinstance(one, BatchVerifier) and not isinstance(one, ImageNeeded)]
        if self.stop == "best" and not counts:
            raise UserError(
                "rewrite.stop=best keeps the variant with the lowest pass count, and nothing in `verify` counts",
                next_step="give verify=full, or rewrite.stop=first",
            )

    def __call__(self, state: PipelineState, context: "Context") -> PipelineState:
        trials = [Trial(sample) for sample in state.samples if self._eligible(sample)]
        if words := about_seeds(state.samples, len(trials), self.counter.rollouts, self.min_correct):
            context.progress.warn(words)
        seen = {sample.content_key for sample in state.samples}
        attempts, passed = 0, Counter[str]()
        with context.progress.task("rewrite", len(trials)) as progress:
            for number in range(self.attempts):
                left = [trial for trial in trials if trial.open(self.stop)]
                if not left:
                    break
                attempts += len(left)
                passed += self._attempt(number, left, seen, state, context)
                check_yield(trials, attempts, self.min_yield)
                progress.set(sum(bool(trial.accepted) for trial in trials), attempt=number + 1, open=len(left))
        variants, undecided = self._counted_anew(trials, state, context)
        figures = variant_figures(
            state.samples, trials, variants, attempts=attempts, stop=self.stop, rollouts=self.counter.rollouts
        )
        figures["funnel"] = [[name, passed[name]] for name in gates(self.verify)]
        rejected = [one for trial in trials for one in trial.rejected]
        rejected += [
            one.rejected(self.name, "another variant was kept", shown(one.rate) if one.rate else "")
            for trial in trials
            for one in trial.passed_over(self.stop)
        ]
        return state.add(samples=(*state.samples, *variants), rejected=(*rejected, *undecided), figures=figures)

    def expect(self, outlook: Outlook) -> Expectation:
        return foretold(self, outlook)

    def _eligible(self, sample: Sample) -> bool:
        score = sample.score
        return score is not None and score.num_valid >= self.counter.rollouts and score.num_correct >= self.min_correct

    def _attempt(
        self, number: int, trials: Sequence[Trial], seen: set[str], state: PipelineState, context: "Context"
    ) -> Counter[str]:
        """One more rewrite of each of these seeds, which ends as accepted or rejected; how many passed each gate."""
        written = asyncio.run(self._written(number, trials, state, context))
        passed = Counter({WRITTEN: left(written)})
        outcomes = [self._new(one, seen, state) if isinstance(one, Candidate) else one for one in written]
        passed[NEW] = left(outcomes)
        for name, verifier in zip(gates(self.verify)[2:], self.verify, strict=True):
            places = [place for place, one in enumerate(outcomes) if isinstance(one, Candidate)]
            candidates = [one for one in outcomes if isinstance(one, Candidate)]
            for place, judged in zip(places, self._verified(verifier, candidates, state, context), strict=True):
                outcomes[place] = self._settled(judged)
            passed[name] = left(outcomes)
        for trial, outcome in zip(trials, outcomes, strict=True):
            trial.add(outcome)
        return passed

    async def _written(
        self, number: int, trials: Sequence[Trial], state: PipelineState, context: "Context"
    ) -> list[Candidate | Rejected]:
        async with context.connect(self.teacher, "teacher") as client:
            return await together(self._write(number, trial, state, client) for trial in trials)

    async def _write(self, number: int, trial: Trial, state: PipelineState, client: "Client") -> Candidate | Rejected:
        question = trial.start(self.chain)
        images = trial.seed.images
        prompt = prompts.render(
            TEMPLATE, task=state.task, pattern=None, demos=(), question=question, images=len(images)
        )
        index = self.seed * self.attempts + number
        messages = [{"role": "user", "content": images_first(prompt, images)}]
        answer = await client.ask(messages, QuestionDraft, index=index, temperature=self.temperature)
        provenance = Provenance(
            teacher=self.teacher.model, prompt=digest(prompts.source(TEMPLATE)), index=number, calls=answer.calls
        )
        if answer.value is None:
            return unusable(self.name, answer.error, answer.detail, provenance, trial.seed)
        text = answer.value.question
        placed = with_placeholders(text, len(images))
        drafted = Candidate(placed or text, "", "harder", provenance, trial.seed, images, answer=trial.seed.answer)
        if placed is None:
            detail = f"{text.count(IMAGE)} placeholders for {len(images)} images"
            return drafted.rejected(self.name, "placeholders", detail)
        return drafted

    def _new(self, candidate: Candidate, seen: set[str], state: PipelineState) -> Candidate | Rejected:
        """Without those that are there already, settled in the order of seeds."""
        if refusal := at_first_sight(candidate, state.task):
            return self._settled(refusal)
        mark = content_key(candidate.input, [image.digest for image in candidate.images])
        if mark in seen:
            return candidate.rejected(self.name, "duplicate", "the same question as an earlier one")
        seen.add(mark)
        return candidate

    def _verified(
        self, verifier: Any, candidates: Sequence[Candidate], state: PipelineState, context: "Context"
    ) -> list[Candidate | Refusal]:
        if isinstance(verifier, BatchVerifier):
            return verifier.verify_all(candidates, state, context) if candidates else []
        return asyncio.run(self._judged(verifier, candidates, state, context))

    async def _judged(
        self, verifier: Any, candidates: Sequence[Candidate], state: PipelineState, context: "Context"
    ) -> list[Candidate | Refusal]:
        """By whoever the verifier names, who need not be the writer."""
        async with context.connect(getattr(verifier, "teacher", self.teacher), "teacher") as client:
            return await together(verifier.verify(one, state.task, client) for one in candidates)

    def _settled(self, outcome: Candidate | Refusal) -> Candidate | Rejected:
        if isinstance(outcome, Candidate):
            return outcome
        return outcome.candidate.rejected(self.name, outcome.reason, outcome.detail)

    def _counted_anew(
        self, trials: Sequence[Trial], state: PipelineState, context: "Context"
    ) -> tuple[list[Sample], list[Rejected]]:
        """The kept variants with a pass rate of fresh replies; without enough of these they stay undecided."""
        kept = [one for trial in trials if (one := trial.kept(self.stop)) is not None]
        samples = [one.sample(state.task) for one in kept]
        asked = [Asked(one.input, one.answer or "", one.images, one.drawn) for one in kept]
        rates = self.counter.count(asked, state, context, names=[sample.id for sample in samples])
        variants, undecided = [], []
        for one, sample, rate in zip(kept, samples, rates, strict=True):
            if rate.num_valid < self.counter.rollouts:
                undecided.append(one.rejected(self.name, "undecided", f"{shown(rate)} when counted anew"))
            else:
                variants.append(sample.replace(score=rate))
        return variants, undecided
