"""Verifiers by pass count: the target still reaches the answer, and less often than on the seed."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from pydantic import Field

from dsrl.core.component import Component, component
from dsrl.core.errors import UserError
from dsrl.core.statistics import wilson_interval
from dsrl.data.model import Model
from dsrl.data.sample import Rate
from dsrl.graders import Grader
from dsrl.models.rollout.protocols import PassCounter, Question
from dsrl.stages.generate.candidate import Candidate, Refusal

if TYPE_CHECKING:
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState

Outcome = Candidate | Refusal


@runtime_checkable
class BatchVerifier(Protocol):
    """Verifies many candidates at once, because a local model answers in batches."""

    def verify_all(self, candidates: Sequence[Candidate], state: "PipelineState", context: "Context") -> list[Outcome]:
        """One outcome per candidate, which may depend on that candidate only."""


@component(None)
class PassCountBand(Component, ABC):
    """Accepts a candidate by a pass count. Replies that an earlier verifier has used are not used again, so a second
    band in the list is a second, independent test."""

    counter: PassCounter
    model: Model | None = None
    """The model that answers. None: the one to be trained."""
    min_correct: int = Field(default=4, ge=1)
    """Replies, of the counter's `rollouts`, that must reach the seed's answer (the paper's T_min)."""
    max_guessing: float = Field(default=0.05, gt=0, le=1)
    """Questions with options need more correct replies than `min_correct` until random guessing among the options
    reaches the count with at most this probability. 1: no more are needed."""

    def check(self) -> None:
        if self.min_correct > self.counter.rollouts:
            raise UserError(
                f"{type(self).__name__}: min_correct is larger than rollouts",
                got=f"min_correct={self.min_correct} of {self.counter.rollouts} rollouts",
                next_step="lower verify.N.min_correct or raise rollouts",
            )

    @abstractmethod
    def refusal(self, seed: Rate, variant: Rate) -> str:
        """Why the variant is not considered harder than the seed; empty if it is."""

    def verify_all(self, candidates: Sequence[Candidate], state: "PipelineState", context: "Context") -> list[Outcome]:
        questions = [candidate.to_question() for candidate in candidates]
        rates = self.counter.count(questions, state, context, self.model)
        required = [self.required_correct(one.input, state.task.answer) for one in candidates]
        seed_rates = self._count_seeds(candidates, rates, required, state, context)
        return [self._judge(*each) for each in zip(candidates, rates, required, seed_rates, strict=True)]

    def required_correct(self, question: str, grader: Grader) -> int:
        """Correct replies that a question needs: `min_correct`, or more if guessing among its options could reach that
        too easily. With four options and sixteen rollouts these are 8; guessing reaches 4 in 60 % of counts."""
        options = len(grader.for_question(question).allowed()) or len(grader.answers)
        if options < 2 or self.max_guessing == 1:
            return self.min_correct
        from scipy.stats import binom

        enough = int(binom.isf(self.max_guessing, self.counter.rollouts, 1 / options)) + 1
        if enough > self.counter.rollouts:
            raise UserError(
                f"{type(self).__name__}: no count of so few replies excludes guessing among {options} options",
                got=f"{self.counter.rollouts} rollouts, max_guessing={self.max_guessing:g}",
                next_step="raise rollouts, or give verify.N.max_guessing=1",
            )
        return max(self.min_correct, enough)

    def _count_seeds(
        self,
        candidates: Sequence[Candidate],
        rates: Sequence[Rate],
        required: Sequence[int],
        state: "PipelineState",
        context: "Context",
    ) -> list[Rate | None]:
        """The counts of the seeds by the same model, as fresh as the candidates' own; None where they don't matter."""
        places = [place for place, rate in enumerate(rates) if self._is_solvable(rate, required[place])]
        questions = [
            Question(parent.input, parent.answer, parent.images, candidates[place].num_consumed_of_parent)
            for place in places
            if (parent := candidates[place].parent)
        ]
        counted = dict(zip(places, self.counter.count(questions, state, context, self.model), strict=True))
        return [counted.get(place) for place in range(len(candidates))]

    def _judge(self, candidate: Candidate, rate: Rate, required: int, seed: Rate | None) -> Outcome:
        own = self.model is None
        counted = replace(candidate, rate=rate, num_consumed=candidate.num_consumed + (rate.num_rollouts if own else 0))
        detail = describe_rate(rate)
        if rate.num_valid < self.counter.rollouts:
            return Refusal("undecided", f"{detail} replies, {self.counter.rollouts} are needed", counted)
        if not self._is_solvable(rate, required):
            return Refusal("too hard", f"{detail}, at least {required} are needed", counted)
        assert seed is not None
        consumed = candidate.num_consumed_of_parent + (seed.num_rollouts if own else 0)
        counted = replace(counted, num_consumed_of_parent=consumed)
        detail = f"{detail}, the seed {describe_rate(seed)}"
        if seed.num_valid < self.counter.rollouts:
            return Refusal("undecided", detail, counted)
        if reason := self.refusal(seed, rate):
            return Refusal("not harder", f"{detail}; {reason}", counted)
        return counted.accept(type(self).__name__, detail)

    def _is_solvable(self, rate: Rate, required: int) -> bool:
        return rate.num_valid >= self.counter.rollouts and rate.num_correct >= required


@component("verify.pass_band")
class PassBand(PassCountBand):
    """The paper's rule: at least `min_correct` correct replies, and at least `margin` fewer than on the seed."""

    margin: int = Field(default=2, ge=0)

    def refusal(self, seed: Rate, variant: Rate) -> str:
        harder = variant.num_correct <= seed.num_correct - self.margin
        return "" if harder else f"at least {self.margin} fewer are needed"


@component("verify.interval_band")
class IntervalBand(PassCountBand):
    """The pass rate must have fallen by more than chance explains: the interval of the difference excludes 0."""

    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Of the two-sided interval, for one attempt."""

    def refusal(self, seed: Rate, variant: Rate) -> str:
        drop = lower_bound_of_drop(seed, variant, self.confidence)
        return "" if drop > 0 else f"the pass rate may not have fallen (lower bound {drop:+.2f})"


@component("verify.single_pass")
class SinglePass(PassCountBand):
    """The answer is reached often enough; whether the question is harder is not tested (the paper's single pass)."""

    min_correct: int = Field(default=1, ge=1)
    max_guessing: float = Field(default=1.0, gt=0, le=1)

    def refusal(self, seed: Rate, variant: Rate) -> str:  # noqa: ARG002
        return ""


def describe_rate(rate: Rate) -> str:
    """`6 of 16 (1 failed)`."""
    missing = [f"{rate.num_error} failed"] if rate.num_error else []
    missing += [f"{rate.num_truncated} truncated"] if rate.num_truncated else []
    return f"{rate.num_correct} of {rate.num_valid}" + (f" ({', '.join(missing)})" if missing else "")


def lower_bound_of_drop(seed: Rate, variant: Rate, confidence: float) -> float:
    """Lower bound of the pass rate's fall from seed to variant, with Newcombe's interval of a difference (1998, method
    10), two-sided at `confidence`. Above 0 the variant is harder by more than chance explains."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    first, second = seed.num_correct / seed.num_valid, variant.num_correct / variant.num_valid
    low, high = wilson_interval(first, seed.num_valid, z)[0], wilson_interval(second, variant.num_valid, z)[1]
    return first - second - math.hypot(first - low, high - second)
