"""The stages `probe` (one greedy reply per sample, steers the rewriting) and `score` (the pass rate over many)."""

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from dsrl.core.component import component
from dsrl.core.errors import UserError
from dsrl.data.model import Sampling
from dsrl.models.rollout.protocols import Rollout
from dsrl.pipeline.stage import Stage
from dsrl.stages.score.figures import score_figures
from dsrl.stages.score.measure import measure

if TYPE_CHECKING:
    from dsrl.data.task import Task
    from dsrl.forecast.workload import ForecastState, StageForecast
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState


@component("stages.probe")
class Probe(Stage):
    """One greedy rollout per sample; fills `Sample.probe`."""

    name: ClassVar[str] = "probe"
    inputs = ("samples", "base", "format")
    outputs = ("samples", "probe")

    rollout: Rollout
    max_tokens: int = Field(default=1024, gt=0)

    def forecast(self, before: "ForecastState") -> "StageForecast":
        inputs = [sample.input for sample in before.state.samples]
        return before.forecast(before.rollouts(self.rollout, before.samples, self.sampling, 1, inputs))

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=0.0, max_tokens=self.max_tokens)

    def __call__(self, state: "PipelineState", context: "Context") -> "PipelineState":
        measured = measure(state, self.rollout, self.sampling, 1, context)
        values = [rate.value for _, rate in measured]
        figures = {
            "rows": {"in": len(measured), "out": len(measured)},
            "solved": values.count(1.0),
            "unsolved": values.count(0.0),
            "undecided": values.count(None),
            "truncated": sum(rate.num_truncated for _, rate in measured),
        }
        return state.add(samples=tuple(sample.replace(probe=rate) for sample, rate in measured), figures=figures)


@component("stages.score")
class Score(Stage):
    """`rollouts` replies per sample; fills `Sample.score`."""

    name: ClassVar[str] = "score"
    inputs = ("samples", "base", "format")
    outputs = ("samples", "score")
    published: ClassVar[tuple[str, ...]] = (
        *("samples", "rollouts", "mean_pass_rate", "zero", "one", "histogram", "sequential"),
    )

    rollout: Rollout
    rollouts: int = Field(default=64, gt=0)
    """Replies per sample (the paper's L)."""
    temperature: float = Field(default=0.7, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=1024, gt=0)
    low: float = Field(default=0.0, ge=0, le=1)
    """Samples with this pass rate or less teach nothing."""
    high: float = Field(default=1.0, ge=0, le=1)
    """Samples with this pass rate or more teach nothing."""

    def shows_images(self, task: "Task", *, in_samples: bool) -> bool:  # noqa: ARG002
        return in_samples

    def check(self) -> None:
        """Raises `UserError` for an empty band of pass rates."""
        if self.low >= self.high:
            raise UserError(
                "score.low must be less than score.high", got=f"{self.low} and {self.high}", next_step="widen the band"
            )

    def forecast(self, before: "ForecastState") -> "StageForecast":
        inputs = [sample.input for sample in before.state.samples]
        return before.forecast(before.rollouts(self.rollout, before.samples, self.sampling, self.rollouts, inputs))

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_tokens)

    def __call__(self, state: "PipelineState", context: "Context") -> "PipelineState":
        measured = measure(state, self.rollout, self.sampling, self.rollouts, context)
        samples = tuple(sample.replace(score=rate) for sample, rate in measured)
        return state.add(samples=samples, figures=score_figures(samples, self.rollouts, self.low, self.high))
