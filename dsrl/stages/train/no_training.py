"""No training: for data sets, measurements and served models."""

from typing import TYPE_CHECKING, ClassVar

from dsrl.core.component import component
from dsrl.forecast.workload import Load
from dsrl.pipeline.stage import Stage
from dsrl.stages.train.base import PUBLISHED

if TYPE_CHECKING:
    from dsrl.forecast.workload import Expectation, Outlook
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState


@component("stages.train.none")
class NoTraining(Stage):
    """Leaves the base model as it is."""

    name: ClassVar[str] = "train"
    inputs = ()
    outputs = ("trained",)
    published: ClassVar[tuple[str, ...]] = PUBLISHED

    def expect(self, outlook: "Outlook") -> "Expectation":
        return outlook.expects(Load(), trains=False)

    def __call__(self, state: "PipelineState", context: "Context") -> "PipelineState":  # noqa: ARG002 - a stage's signature
        return state.add(trained=None, figures={"algorithm": "none", "engine": "none", "steps": 0})
