"""The rankings behind `select=`. Equal pass rates are ordered by a seeded hash of the sample's id."""

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from dsrl.core.component import component
from dsrl.core.digest import digest
from dsrl.core.errors import UserError
from dsrl.data.sample import Sample
from dsrl.stages.select.base import CandidatePool, Select, pass_rate

if TYPE_CHECKING:
    from dsrl.forecast.estimate import Range
    from dsrl.forecast.workload import ForecastState
    from dsrl.pipeline.state import PipelineState


MIN_WEIGHT = 1e-3
"""Weight of a sample that is always solved."""


@component(None)
class PassRateBand(Select):
    """Ranks samples with low < pass rate < high only: without both correct and wrong replies there is no gradient."""

    low: float = Field(default=0.0, ge=0, le=1)
    high: float = Field(default=1.0, ge=0, le=1)

    @model_validator(mode="after")
    def _check_order(self) -> "PassRateBand":
        if self.low >= self.high:
            raise UserError("select: low is not below high", got=f"low={self.low}, high={self.high}")
        return self

    def within(self, samples: Iterable[Sample]) -> list[Sample]:
        """The samples inside the band, ties in seeded order."""
        return [sample for sample in self.shuffled("tie", samples) if self.low < pass_rate(sample) < self.high]

    def fill_candidates(self, samples: Iterable[Sample]) -> list[Sample]:
        mixed = self.shuffled("tie", samples)
        below = [sample for sample in mixed if pass_rate(sample) <= self.low]
        above = [sample for sample in mixed if pass_rate(sample) >= self.high]
        if self.fill == "unsolved":
            return sorted(below, key=pass_rate, reverse=True)
        if self.fill == "solved":
            return sorted(above, key=pass_rate)
        if self.fill == "both":
            return [sample for sample in mixed if not self.low < pass_rate(sample) < self.high]
        return []


@component("stages.select.paper")
class PaperRanking(PassRateBand):
    """Lowest pass rate first (Synthetic Data RL, eq. 7; a rate of 0 counts as too hard to learn from)."""

    needs_only_lowest_rates: ClassVar[bool] = True

    def ranking(self, samples: Iterable[Sample]) -> list[Sample]:
        return sorted(self.within(samples), key=pass_rate)


@component("stages.select.probability")
class Probability(PassRateBand):
    """`m` draws with replacement from the band, each sample with weight 1 - rate + 0.001, as in the authors' code. A
    sample drawn k times is in the training set k times, and so is seen k times per epoch."""

    def ranking(self, samples: Iterable[Sample]) -> list[Sample]:
        band = self.within(samples)
        weights = [1 - pass_rate(sample) + MIN_WEIGHT for sample in band]
        rng = random.Random(digest([self.seed, "probability"]))
        return rng.choices(band, weights, k=self.m or len(band)) if band else []


@component("stages.select.learnable")
class Learnable(PassRateBand):
    """Pass rate nearest to the middle of the band first: with the whole band, to 0.5, where a group of replies is most
    often mixed and the variance of its rewards largest."""

    def ranking(self, samples: Iterable[Sample]) -> list[Sample]:
        middle = (self.low + self.high) / 2
        return sorted(self.within(samples), key=lambda sample: abs(pass_rate(sample) - middle))


@component("stages.select.hardest")
class Hardest(Select):
    """Lowest pass rate first, zeros included (the paper's ablation `hard`)."""

    def ranking(self, samples: Iterable[Sample]) -> list[Sample]:
        return sorted(self.shuffled("tie", samples), key=pass_rate)


@component("stages.select.easiest")
class Easiest(Select):
    """Highest pass rate first, ones included (the paper's ablation `easy`)."""

    def ranking(self, samples: Iterable[Sample]) -> list[Sample]:
        return sorted(self.shuffled("tie", samples), key=pass_rate, reverse=True)


@component("stages.select.random")
class RandomChoice(Select):
    """Any scored samples, in seeded order."""

    def ranking(self, samples: Iterable[Sample]) -> list[Sample]:
        return self.shuffled("choice", samples)


@component("stages.select.random_unscored")
class RandomUnscored(RandomChoice):
    """Any samples, in seeded order, scored or not: for data sets that are trained on as they are."""

    inputs: ClassVar[tuple[str, ...]] = ("samples", "decontaminated")

    def pool(self, state: "PipelineState") -> CandidatePool:
        return CandidatePool(state.samples, 0)

    def expected(self, before: "ForecastState") -> "Range":
        return before.samples


@component("stages.select.all")
class AllScored(RandomChoice):
    """Every scored sample, whatever m (the paper's ablation `full`)."""

    m: None = None


@component("stages.select.augment")
class Augment(Select):
    """SynthRL's seeds and variants (A-MMK12), in seeded order. All scored samples are ranked, always and never solved
    ones included, because the baseline of the seeds alone has them, too (paper, section 4.3)."""

    m: int | None = Field(default=None, gt=0)

    def ranking(self, samples: Iterable[Sample]) -> list[Sample]:
        return self.shuffled("choice", samples)


@component("stages.select.replace")
class Replace(Augment):
    """A variant replaces its seed; seeds without one stay (R-MMK12)."""

    def ranking(self, samples: Iterable[Sample]) -> list[Sample]:
        known = list(samples)
        replaced = {sample.parent_id for sample in known if sample.origin == "harder"}
        return self.shuffled("choice", (sample for sample in known if sample.id not in replaced))


@component("stages.select.seeds_only")
class SeedsOnly(Augment):
    """The seeds alone: the baseline."""

    def ranking(self, samples: Iterable[Sample]) -> list[Sample]:
        return self.shuffled("choice", (sample for sample in samples if sample.origin == "seed"))
