"""What the target's own replies say of a candidate: it still reaches the answer, and less often than on the seed."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from pydantic import Field

from dsrl.core.component import Component, component
from dsrl.core.errors import UserError
from dsrl.data.model import Model
from dsrl.data.sample import Rate
from dsrl.models.rollout.protocols import Asked, PassCounter
from dsrl.stages.generate.candidate import Candidate, Refusal
from dsrl.stages.rewrite.synthrl.interval import least_drop

if TYPE_CHECKING:
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState

Outcome = Candidate | Refusal


@runtime_checkable
class BatchVerifier(Protocol):
    """Verifies many candidates at once, because a local model is asked in batches."""

    def verify_all(self, candidates: Sequence[Candidate], state: "PipelineState", context: "Context") -> list[Outcome]:
        """One outcome for each candidate, which depends on nothing but that candidate."""


@component(None)
class Band(Component, ABC):
    """Accepts a candidate by a pass count. Replies that an earlier verifier has looked at are not looked at again, so a
    second band in the list is a second, independent test."""

    counter: PassCounter
    model: Model | None = None
    """Who is asked; None: the model that is to be trained."""
    min_correct: int = Field(default=4, ge=1)
    """Replies, of the counter's `rollouts`, that must reach the seed's answer (the paper's T_min)."""

    def check(self) -> None:
        if self.min_correct > self.counter.rollouts:
            raise UserError(
                f"{type(self).__name__}: min_correct can't be reached",
                got=f"min_correct={self.min_correct} of {self.counter.rollouts} rollouts",
                next_step="lower verify.N.min_correct or raise rollouts",
            )

    @abstractmethod
    def refused(self, seed: Rate, variant: Rate) -> str:
        """Why the variant doesn't count as harder than the seed, in a few words; empty where it does."""

    def verify_all(self, candidates: Sequence[Candidate], state: "PipelineState", context: "Context") -> list[Outcome]:
        asked = [Asked(one.input, one.answer or "", one.images, one.drawn) for one in candidates]
        rates = self.counter.count(asked, state, context, self.model)
        seeds = self._seeds(candidates, rates, state, context)
        return [self._judged(*trio) for trio in zip(candidates, rates, seeds, strict=True)]

    def _seeds(
        self, candidates: Sequence[Candidate], rates: Sequence[Rate], state: "PipelineState", context: "Context"
    ) -> list[Rate | None]:
        """The counts of the seeds, as far as they matter: by the same model, and as fresh as the candidates' own."""
        places = [place for place, rate in enumerate(rates) if self._solvable(rate)]
        parents = [(candidates[place], candidates[place].parent) for place in places]
        asked = [
            Asked(parent.input, parent.answer, parent.images, one.drawn_of_parent) for one, parent in parents if parent
        ]
        found = self.counter.count(asked, state, context, self.model)
        known = dict(zip(places, found, strict=True))
        return [known.get(place) for place in range(len(candidates))]

    def _judged(self, candidate: Candidate, rate: Rate, seed: Rate | None) -> Outcome:
        own = self.model is None
        counted = replace(candidate, rate=rate, drawn=candidate.drawn + (rate.num_rollouts if own else 0))
        words = shown(rate)
        if rate.num_valid < self.counter.rollouts:
            return Refusal("undecided", f"{words} replies, {self.counter.rollouts} are needed", counted)
        if not self._solvable(rate):
            return Refusal("too hard", f"{words}, at least {self.min_correct} are needed", counted)
        assert seed is not None
        counted = replace(counted, drawn_of_parent=candidate.drawn_of_parent + (seed.num_rollouts if own else 0))
        words = f"{words}, the seed {shown(seed)}"
        if seed.num_valid < self.counter.rollouts:
            return Refusal("undecided", words, counted)
        if doubt := self.refused(seed, rate):
            return Refusal("not harder", f"{words}; {doubt}", counted)
        return counted.passed(type(self).__name__, words)

    def _solvable(self, rate: Rate) -> bool:
        return rate.num_valid >= self.counter.rollouts and rate.num_correct >= self.min_correct


@component("verify.pass_band")
class PassBand(Band):
    """The paper's rule: at least `min_correct` right, and at least `margin` fewer than on the seed."""

    margin: int = Field(default=2, ge=0)

    def refused(self, seed: Rate, variant: Rate) -> str:
        harder = variant.num_correct <= seed.num_correct - self.margin
        return "" if harder else f"at least {self.margin} fewer are needed"


@component("verify.interval_band")
class IntervalBand(Band):
    """The pass rate must have fallen by more than chance explains: the interval of the difference leaves out 0."""

    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Of the two-sided interval, for one attempt."""

    def refused(self, seed: Rate, variant: Rate) -> str:
        drop = least_drop(seed, variant, self.confidence)
        return "" if drop > 0 else f"the pass rate may not have fallen (lower bound {drop:+.2f})"


@component("verify.single_pass")
class SinglePass(Band):
    """The answer is reached often enough; whether the question is harder is not asked (the paper's single pass)."""

    min_correct: int = Field(default=1, ge=1)

    def refused(self, seed: Rate, variant: Rate) -> str:  # noqa: ARG002
        return ""


def shown(rate: Rate) -> str:
    """`6 of 16`, and what is missing."""
    missing = [f"{rate.num_error} failed"] if rate.num_error else []
    missing += [f"{rate.num_truncated} truncated"] if rate.num_truncated else []
    return f"{rate.num_correct} of {rate.num_valid}" + (f" ({', '.join(missing)})" if missing else "")
