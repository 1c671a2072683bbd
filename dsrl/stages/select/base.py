"""Which samples are trained on: a strategy ranks those with a pass rate, the first m are taken."""

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
from dsrl.forecast.workload import Load
from dsrl.pipeline.stage import Stage

if TYPE_CHECKING:
    from dsrl.core.estimate import Range
    from dsrl.forecast.workload import Expectation, Outlook
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState

Fill = Literal["none", "unsolved", "solved", "both", "error"]


@dataclass(frozen=True)
class Pool:
    """The samples that may be selected, and how many may not be."""

    samples: tuple[Sample, ...]
    unscored: int
    """No rollout of theirs brought a reply."""


@component(None)
class Select(Stage):
    """Takes the first m samples of a ranking, and a random set of the same size as their counterfactual."""

    name: ClassVar[str] = "select"
    inputs: ClassVar[tuple[str, ...]] = ("samples", "score", "decontaminated")
    outputs: ClassVar[tuple[str, ...]] = ("selected", "control")
    published: ClassVar[tuple[str, ...]] = ("m", "selected", "shortfall")

    m: int | None = Field(gt=0)
    """Samples to train on; null takes all that the strategy ranks."""
    n: int = Field(gt=0)
    """Samples that were asked for from the teacher; only used to say how many would have been enough."""
    fill: Fill = "none"
    """What to do when the ranking is shorter than m. `none`: go on with fewer, with a warning. `unsolved`, `solved`:
    fill up from below or above the band of pass rates, nearest to it first. `both`: from below and above alike, in
    seeded order. `error`: stop."""
    seed: int = 0

    @abstractmethod
    def ranking(self, samples: Iterable[Sample]) -> list[Sample]:
        """The samples that this strategy would train on, best first."""

    def expect(self, outlook: "Outlook") -> "Expectation":
        """Nothing is asked; how many samples can be learned from is assumed."""
        found = self.expected(outlook)
        return outlook.expects(Load(), selected=found if self.m is None else found.within(most=self.m))

    def expected(self, outlook: "Outlook") -> "Range":
        """Samples that will be ranked."""
        return outlook.samples * defaults.LEARNABLE

    def __call__(self, state: "PipelineState", context: "Context") -> "PipelineState":
        pool = self.pool(state)
        ranked = self.ranking(pool.samples)
        wanted = len(ranked) if self.m is None else self.m
        chosen = ranked[:wanted]
        if len(chosen) < wanted:
            chosen += self.beyond(pool.samples)[: wanted - len(chosen)]
            self._report(pool, len(ranked), len(chosen), context)
        if not chosen:
            raise StageFailed(
                "select: there is nothing to train on",
                got=describe(pool),
                next_step="raise n, change the task's difficulty, or give fill=unsolved or fill=solved",
            )
        control = self.shuffled("control", pool.samples)[: len(chosen)]
        figures = self._figures(pool, ranked, chosen, wanted)
        return state.add(selected=_ids(chosen), control=_ids(control), figures=figures)

    def pool(self, state: "PipelineState") -> Pool:
        """What there is to choose from."""
        return candidates(state)

    def beyond(self, samples: Iterable[Sample]) -> list[Sample]:  # noqa: ARG002
        """What `fill` adds to a ranking that is too short, best first."""
        return []

    def shuffled(self, what: str, samples: Iterable[Sample]) -> list[Sample]:
        """In seeded random order that depends on the samples alone, not on the order in which they came."""
        return sorted(samples, key=lambda sample: digest([self.seed, what, sample.id]))

    def suggested_n(self, ranked: int) -> int | None:
        """Samples to ask of the teacher so that the ranking would reach m at the rate seen here."""
        return math.ceil(self.n * self.m / ranked) if self.m and 0 < ranked < self.m else None

    def _report(self, pool: Pool, ranked: int, chosen: int, context: "Context") -> None:
        """Say loudly that samples are lacking. Raises `StageFailed` with `fill=error`."""
        suggestion = self.suggested_n(ranked)
        cure = f"n={suggestion} would give about {self.m}" if suggestion else "raise n or change the difficulty"
        what = f"select: only {ranked} of the {self.m} samples asked for ({describe(pool)})"
        if self.fill == "error":
            raise StageFailed(what, next_step=f"{cure}; or give fill=none")
        kind = "unsolved or solved" if self.fill == "both" else self.fill
        filled = f", {chosen - ranked} of them {kind}" if chosen > ranked else ""
        context.progress.warn(f"{what}; going on with {chosen}{filled}. {cure}; what is there isn't paid for again.")

    def _figures(self, pool: Pool, ranked: list[Sample], chosen: list[Sample], wanted: int) -> dict[str, Any]:
        rates = [value for sample in chosen if (value := known_rate(sample)) is not None]
        return {
            "strategy": strategy(type(self)),
            "m": wanted,
            "selected": len(chosen),
            "distinct": len(set(_ids(chosen))),
            "shortfall": wanted - len(chosen),
            "filled": max(len(chosen) - len(ranked), 0),
            "suggested_n": self.suggested_n(len(ranked)),
            "mean_rate": sum(rates) / len(rates) if rates else None,
            "unscored": pool.unscored,
            "rows": {"in": len(pool.samples) + pool.unscored, "out": len(chosen)},
        }


def candidates(state: "PipelineState") -> Pool:
    """All samples with a pass rate. Those that give test items away are gone by now, if they are to go."""
    scored = tuple(sample for sample in state.samples if known_rate(sample) is not None)
    return Pool(scored, len(state.samples) - len(scored))


def known_rate(sample: Sample) -> float | None:
    """Pass rate, where the sample was scored and a reply came."""
    return sample.score.value if sample.score else None


def rate(sample: Sample) -> float:
    """Pass rate of a sample that has one."""
    value = known_rate(sample)
    assert value is not None
    return value


def describe(pool: Pool) -> str:
    """How hard the samples were, in words."""
    rates = [value for sample in pool.samples if (value := known_rate(sample)) is not None]
    if pool.samples and not rates:
        return f"{len(pool.samples)} samples, none of them scored"
    zero, one = rates.count(0.0), rates.count(1.0)
    return (
        f"{len(rates)} scored: {zero} never solved, {one} always, {len(rates) - zero - one} sometimes; "
        f"{pool.unscored} without a score"
    )


def strategy(cls: type) -> str:
    """`PaperRanking` -> `paper_ranking`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()


def _ids(samples: Iterable[Sample]) -> tuple[str, ...]:
    return tuple(sample.id for sample in samples)
