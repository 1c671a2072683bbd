"""Which samples are trained on: a strategy ranks those with a pass rate, and the first m are selected."""

import math
import re
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from dsrl.core.component import component
from dsrl.core.digest import digest
from dsrl.core.errors import StageFailed
from dsrl.data.sample import Sample
from dsrl.forecast import defaults
from dsrl.forecast.workload import Workload
from dsrl.pipeline.stage import Stage

if TYPE_CHECKING:
    from dsrl.forecast.estimate import Range
    from dsrl.forecast.workload import ForecastState, StageForecast
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState

Fill = Literal["none", "unsolved", "solved", "both", "error"]


@dataclass(frozen=True)
class CandidatePool:
    """The samples that may be selected."""

    samples: tuple[Sample, ...]
    unscored: int
    """Samples left out because none of their rollouts brought a reply."""

    def describe(self) -> str:
        """How hard the samples are, for messages."""
        rates = [value for sample in self.samples if (value := pass_rate_or_none(sample)) is not None]
        if self.samples and not rates:
            return f"{len(self.samples)} samples, none of them scored"
        zero, one = rates.count(0.0), rates.count(1.0)
        return (
            f"{len(rates)} scored: {zero} never solved, {one} always, {len(rates) - zero - one} sometimes; "
            f"{self.unscored} without a score"
        )


@component(None)
class Select(Stage):
    """Selects the first m samples of a ranking, and a random set of the same size as their counterfactual."""

    name: ClassVar[str] = "select"
    inputs: ClassVar[tuple[str, ...]] = ("samples", "score", "decontaminated")
    outputs: ClassVar[tuple[str, ...]] = ("selected", "control")
    published: ClassVar[tuple[str, ...]] = ("m", "selected", "shortfall")

    m: int | None = Field(gt=0)
    """Samples to train on; null takes all that the strategy ranks."""
    n: int = Field(gt=0)
    """Samples that the teacher was asked for; only used to suggest how many would have been enough."""
    fill: Fill = "none"
    """What to do when the ranking is shorter than m. `none`: go on with fewer, with a warning. `unsolved`, `solved`:
    fill up from below or above the band of pass rates, nearest to it first. `both`: from below and above alike, in
    seeded order. `error`: stop."""
    seed: int = 0

    @abstractmethod
    def ranking(self, samples: Iterable[Sample]) -> list[Sample]:
        """The samples that this strategy would train on, best first."""

    def forecast(self, before: "ForecastState") -> "StageForecast":
        """No requests; the share of samples that can be learned from is an assumption."""
        expected = self.expected(before)
        return before.forecast(Workload(), selected=expected if self.m is None else expected.within(most=self.m))

    def expected(self, before: "ForecastState") -> "Range":
        """Samples that will be ranked."""
        return before.samples * defaults.LEARNABLE

    def __call__(self, state: "PipelineState", context: "Context") -> "PipelineState":
        pool = self.pool(state)
        ranked = self.ranking(pool.samples)
        wanted = len(ranked) if self.m is None else self.m
        chosen = ranked[:wanted]
        if len(chosen) < wanted:
            chosen += self.fill_candidates(pool.samples)[: wanted - len(chosen)]
            self._report_shortfall(pool, len(ranked), len(chosen), context)
        if not chosen:
            raise StageFailed(
                "select: there is nothing to train on",
                got=pool.describe(),
                next_step="raise n, change the task's difficulty, or give fill=unsolved or fill=solved",
            )
        ids = tuple(sample.id for sample in chosen)
        control = self.shuffled("control", pool.samples)[: len(chosen)]
        rates = [value for sample in chosen if (value := pass_rate_or_none(sample)) is not None]
        figures: dict[str, Any] = {
            "strategy": strategy_name(type(self)),
            "m": wanted,
            "selected": len(chosen),
            "distinct": len(set(ids)),
            "shortfall": wanted - len(chosen),
            "filled": max(len(chosen) - len(ranked), 0),
            "suggested_n": self.suggested_n(len(ranked)),
            "mean_rate": sum(rates) / len(rates) if rates else None,
            "unscored": pool.unscored,
            "rows": {"in": len(pool.samples) + pool.unscored, "out": len(chosen)},
        }
        return state.add(selected=ids, control=tuple(sample.id for sample in control), figures=figures)

    def pool(self, state: "PipelineState") -> CandidatePool:
        """All samples with a pass rate."""
        scored = tuple(sample for sample in state.samples if pass_rate_or_none(sample) is not None)
        return CandidatePool(scored, len(state.samples) - len(scored))

    def fill_candidates(self, samples: Iterable[Sample]) -> list[Sample]:  # noqa: ARG002
        """What `fill` adds to a ranking that is too short, best first."""
        return []

    def shuffled(self, purpose: str, samples: Iterable[Sample]) -> list[Sample]:
        """The samples in seeded random order, which does not depend on the order in which they are given."""
        return sorted(samples, key=lambda sample: digest([self.seed, purpose, sample.id]))

    def suggested_n(self, ranked: int) -> int | None:
        """Samples to ask the teacher for so that the ranking would reach m at the share seen here."""
        return math.ceil(self.n * self.m / ranked) if self.m and 0 < ranked < self.m else None

    def _report_shortfall(self, pool: CandidatePool, ranked: int, chosen: int, context: "Context") -> None:
        """Warn that samples are lacking. Raises `StageFailed` with `fill=error`."""
        suggestion = self.suggested_n(ranked)
        cure = f"n={suggestion} would give about {self.m}" if suggestion else "raise n or change the difficulty"
        message = f"select: only {ranked} of the {self.m} samples asked for ({pool.describe()})"
        if self.fill == "error":
            raise StageFailed(message, next_step=f"{cure}; or give fill=none")
        kind = "unsolved or solved" if self.fill == "both" else self.fill
        filled = f", {chosen - ranked} of them {kind}" if chosen > ranked else ""
        context.progress.warn(f"{message}; going on with {chosen}{filled}. {cure}; cached replies are not paid again.")


def pass_rate_or_none(sample: Sample) -> float | None:
    """The pass rate, or None if the sample was not scored or no reply came."""
    return sample.score.value if sample.score else None


def pass_rate(sample: Sample) -> float:
    """The pass rate of a sample that has one."""
    value = pass_rate_or_none(sample)
    assert value is not None
    return value


def strategy_name(cls: type) -> str:
    """`PaperRanking` -> `paper_ranking`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()
