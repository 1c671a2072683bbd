"""Pass rates in waves: no more replies for samples that can no longer be among those selected."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from dsrl.core.component import Many, component
from dsrl.core.errors import UserError
from dsrl.core.parquet import write_table
from dsrl.forecast.defaults import SEQUENTIAL
from dsrl.models.rollout.protocols import RolloutSession
from dsrl.stages.score.early_stopping import PartialCount, SelectionGoal, samples_to_stop
from dsrl.stages.score.figures import score_figures
from dsrl.stages.score.measure import TABLE, GradedRollout, grade_replies, pass_rate
from dsrl.stages.score.pass_rate import Score

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dsrl.forecast.workload import ForecastState, StageForecast
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.stage import Stage
    from dsrl.pipeline.state import PipelineState


@component("stages.score.sequential")
class Sequential(Score):
    """A pass rate over at most `rollouts` replies, generated in waves. After each wave, samples stop that can no longer
    be among the m with the lowest rates (`dsrl.stages.score.early_stopping`); their rates are marked as censored."""

    m: int | None = Field(gt=0)
    """Samples that will be selected."""
    waves: Many[int] = (8, 16, 32)
    """Replies per sample after each wave but the last, which brings all `rollouts`."""
    error: float = Field(default=0.01, ge=0, lt=1)
    """Share of the samples selected after full counts that may be expected to be missed."""
    reserve: float = Field(default=0.1, ge=0)
    """Further samples, as a share of m, to allow for those rejected between scoring and selection."""

    def check(self) -> None:
        """Raises `UserError` for waves that do not grow or without m."""
        super().check()
        ends = (0, *self.waves)
        if not self.waves or any(one >= two for one, two in zip(ends, self.waves, strict=False)):
            raise UserError("score.waves must grow", got=str(list(self.waves)), next_step="give score.waves=[8,16,32]")
        if self.m is None:
            raise UserError(
                "score=sequential needs the number of selected samples", got="m=null", next_step="give m=300"
            )

    def check_pipeline(self, pipeline: "Mapping[str, Stage]") -> None:
        """Raise `UserError` unless the selection takes the lowest pass rates."""
        for stage in pipeline.values():
            if "selected" in stage.outputs and not stage.needs_only_lowest_rates:
                raise UserError(
                    "score=sequential stops sampling where a selection of the lowest pass rates needs no more replies",
                    got=f"a selection by {type(stage).__name__}",
                    allowed="select=paper",
                    next_step="give score=pass_rate, or select=paper",
                )

    def forecast(self, before: "ForecastState") -> "StageForecast":
        """Between the first wave for all and every reply for all."""
        inputs = [sample.input for sample in before.state.samples]
        first = min(1.0, self.waves[0] / self.rollouts)
        share = SEQUENTIAL.within(least=first)
        return before.forecast(
            before.rollouts(self.rollout, before.samples, self.sampling, self.rollouts, inputs, share)
        )

    def __call__(self, state: "PipelineState", context: "Context") -> "PipelineState":
        assert state.base is not None
        rows: list[list[GradedRollout]] = [[] for _ in state.samples]
        with self.rollout.session(state.base, context) as session:
            risks = self._run_waves(rows, session, state, context)
        write_table(context.scratch / TABLE, [row for own in rows for row in own], GradedRollout)
        fingerprint = state.base.fingerprint()
        samples = tuple(
            sample.replace(score=pass_rate(own, fingerprint, self.sampling, state.task.answer, censored=place in risks))
            for place, (sample, own) in enumerate(zip(state.samples, rows, strict=True))
        )
        num_replies = sum(map(len, rows))
        sequential = {
            "drawn": num_replies,
            "saved": 1 - num_replies / max(1, len(rows) * self.rollouts),
            "censored": len(risks),
            "expected_misses": sum(risks.values()),
        }
        figures = score_figures(samples, self.rollouts, self.low, self.high)
        return state.add(samples=samples, figures={**figures, "sequential": sequential})

    def _run_waves(
        self, rows: list[list[GradedRollout]], session: RolloutSession, state: "PipelineState", context: "Context"
    ) -> dict[int, float]:
        """Fill `rows`; returns the stopped samples with the risk taken. Decided on whole waves, so that nothing depends
        on the order in which replies arrive."""
        assert self.m is not None, "checked before the run"
        goal = SelectionGoal(round(self.m * (1 + self.reserve)), self.low, self.high, self.error)
        risks: dict[int, float] = {}
        ends = [*(end for end in self.waves if end < self.rollouts), self.rollouts]
        for number, end in enumerate(ends, 1):
            running = [place for place in range(len(rows)) if place not in risks]
            self._run_wave(rows, running, end, session, state, context)
            if end < self.rollouts:
                counts = [
                    PartialCount(
                        sum(row.correct for row in own),
                        sum(row.error is None for row in own),
                        self.rollouts - len(own),
                    )
                    for own in rows
                ]
                share = number / (len(ends) - 1)
                risks |= samples_to_stop(counts, running, goal, sum(risks.values()), share)
        return risks

    def _run_wave(
        self,
        rows: list[list[GradedRollout]],
        running: Sequence[int],
        end: int,
        session: RolloutSession,
        state: "PipelineState",
        context: "Context",
    ) -> None:
        """Bring each running sample to `end` replies."""
        assert state.base is not None
        samples = [state.samples[place] for place in running]
        prompts = [state.task.prompt(sample.input, sample.images) for sample in samples]
        replies = session.generate(state.base, prompts, self.sampling, end, context)
        for place, sample, own in zip(running, samples, replies, strict=True):
            known = len(rows[place])
            rows[place] += grade_replies(
                sample.id, sample.input, sample.answer, own[known:], state.task.answer, first=known
            )
