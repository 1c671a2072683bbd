"""Pass rates in waves: no more replies to samples that can no longer be among those selected."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from dsrl.core.component import Many, component
from dsrl.core.errors import UserError
from dsrl.core.parquet import write_table
from dsrl.data.sample import Rate
from dsrl.forecast.defaults import SEQUENTIAL
from dsrl.models.rollout.protocols import Rollout
from dsrl.models.rollout.session import standing
from dsrl.stages.score.early_stopping import Count, Wanted, stopped
from dsrl.stages.score.figures import score_figures
from dsrl.stages.score.measure import TABLE, GradedRollout, graded, rate
from dsrl.stages.score.pass_rate import Score

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dsrl.forecast.workload import Expectation, Outlook
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.stage import Stage
    from dsrl.pipeline.state import PipelineState


@component("stages.score.sequential")
class Sequential(Score):
    """A pass rate over at most `rollouts` replies, drawn in waves. After each, samples stop that can no longer be among
    the m with the lowest rates (`dsrl.stages.score.early_stopping`); what a rate rests on is recorded with it."""

    m: int | None = Field(gt=0)
    """Samples that will be selected."""
    waves: Many[int] = (8, 16, 32)
    """Replies to a sample after each wave but the last, which brings all `rollouts`."""
    error: float = Field(default=0.01, ge=0, lt=1)
    """Share of the samples selected after full counts that may be expected to be missed."""
    reserve: float = Field(default=0.1, ge=0)
    """So many more, as a share of m, for samples that are taken out between scoring and selection."""

    def check(self) -> None:
        """Waves must grow."""
        super().check()
        ends = (0, *self.waves)
        if not self.waves or any(one >= two for one, two in zip(ends, self.waves, strict=False)):
            raise UserError("score.waves must grow", got=str(list(self.waves)), next_step="give score.waves=[8,16,32]")
        if self.m is None:
            raise UserError(
                "score=sequential needs to know how many are selected", got="m=null", next_step="give m=300"
            )

    def check_pipeline(self, pipeline: "Mapping[str, Stage]") -> None:
        """Only a selection of the lowest rates can do without the others."""
        for stage in pipeline.values():
            if "selected" in stage.outputs and not stage.needs_only_lowest_rates:
                raise UserError(
                    "score=sequential stops drawing for samples that the selection of the lowest pass rates won't take",
                    got=f"a selection by {type(stage).__name__}",
                    allowed="select=paper",
                    next_step="give score=pass_rate, or select=paper",
                )

    def expect(self, outlook: "Outlook") -> "Expectation":
        """Between the first wave for all and every reply for all."""
        inputs = [sample.input for sample in outlook.state.samples]
        first = min(1.0, self.waves[0] / self.rollouts)
        share = SEQUENTIAL.within(least=first)
        return outlook.expects(
            outlook.rollouts(self.rollout, outlook.samples, self.sampling, self.rollouts, inputs, share)
        )

    def __call__(self, state: "PipelineState", context: "Context") -> "PipelineState":
        with standing(self.rollout, state, context) as rollout:
            rows, risks = self._drawn(rollout, state, context)
        write_table(context.scratch / TABLE, [row for own in rows for row in own], GradedRollout)
        rates = [self._rate(own, state, censored=place in risks) for place, own in enumerate(rows)]
        pairs = zip(state.samples, rates, strict=True)
        samples = tuple(sample.replace(score=rate) for sample, rate in pairs)
        figures = score_figures(samples, self.rollouts, self.low, self.high)
        return state.add(samples=samples, figures={**figures, "sequential": self._figures(rows, risks)})

    def _drawn(
        self, rollout: Rollout, state: "PipelineState", context: "Context"
    ) -> tuple[list[list[GradedRollout]], dict[int, float]]:
        """All graded replies, and the risk with which samples were stopped. Decided on whole waves, so that nothing
        depends on the order in which replies came."""
        rows: list[list[GradedRollout]] = [[] for _ in state.samples]
        risks: dict[int, float] = {}
        ends = [*(end for end in self.waves if end < self.rollouts), self.rollouts]
        for number, end in enumerate(ends, 1):
            going = [place for place in range(len(rows)) if place not in risks]
            self._wave(rollout, state, context, rows, going, end)
            if end < self.rollouts:
                counts = [self._count(own) for own in rows]
                share = number / (len(ends) - 1)
                risks |= stopped(counts, going, self._wanted(), sum(risks.values()), share)
        return rows, risks

    def _wave(
        self,
        rollout: Rollout,
        state: "PipelineState",
        context: "Context",
        rows: list[list[GradedRollout]],
        going: Sequence[int],
        end: int,
    ) -> None:
        """Brings each of these samples to so many replies."""
        assert state.base is not None
        prompts = [state.task.prompt(state.samples[place].input, state.samples[place].images) for place in going]
        replies = rollout.generate(state.base, prompts, self.sampling, end, context)
        for place, own in zip(going, replies, strict=True):
            sample, known = state.samples[place], len(rows[place])
            new = graded(sample.id, sample.input, sample.answer, own[known:], state.task.answer, first=known)
            rows[place].extend(new)

    def _count(self, rows: Sequence[GradedRollout]) -> Count:
        valid = sum(row.error is None for row in rows)
        return Count(sum(row.correct for row in rows), valid, self.rollouts - len(rows))

    def _wanted(self) -> Wanted:
        assert self.m is not None, "checked before the run"
        return Wanted(round(self.m * (1 + self.reserve)), self.low, self.high, self.error)

    def _rate(self, rows: Sequence[GradedRollout], state: "PipelineState", *, censored: bool) -> Rate:
        assert state.base is not None
        return rate(rows, state.base.fingerprint(), self.sampling, state.task.answer, censored=censored)

    def _figures(self, rows: Sequence[Sequence[GradedRollout]], risks: "Mapping[int, float]") -> dict[str, object]:
        drawn = sum(map(len, rows))
        return {
            "drawn": drawn,
            "saved": 1 - drawn / max(1, len(rows) * self.rollouts),
            "censored": len(risks),
            "expected_misses": sum(risks.values()),
        }
