"""The greedy probe: which samples does the base model solve at first go? It steers the rewriting."""

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from dsrl.core.component import component
from dsrl.data.model import Sampling
from dsrl.models.rollout.protocols import Rollout
from dsrl.pipeline.stage import Stage
from dsrl.stages.score.measure import measure

if TYPE_CHECKING:
    from dsrl.forecast.workload import Expectation, Outlook
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState


@component("stages.probe")
class Probe(Stage):
    """One greedy rollout a sample; fills `Sample.probe`."""

    name: ClassVar[str] = "probe"
    inputs = ("samples", "base", "format")
    outputs = ("samples", "probe")

    rollout: Rollout
    max_tokens: int = Field(default=1024, gt=0)

    def expect(self, outlook: "Outlook") -> "Expectation":
        inputs = [sample.input for sample in outlook.state.samples]
        return outlook.expects(outlook.rollouts(self.rollout, outlook.samples, self.sampling, 1, inputs))

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
