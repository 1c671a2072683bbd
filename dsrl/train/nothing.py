"""No training: for data sets, measurements and served models."""

from typing import TYPE_CHECKING, ClassVar

from dsrl.forecast import Load
from dsrl.part import part
from dsrl.stage import Stage

if TYPE_CHECKING:
    from dsrl.context import Context
    from dsrl.forecast import Expectation, Outlook
    from dsrl.study import Study


@part
class NoTraining(Stage):
    """Leaves the base model as it is."""

    name: ClassVar[str] = "train"
    needs: ClassVar[tuple[str, ...]] = ()
    adds: ClassVar[tuple[str, ...]] = ("trained",)

    def expect(self, outlook: "Outlook") -> "Expectation":
        return outlook.expects(Load(), trains=False)

    def __call__(self, study: "Study", context: "Context") -> "Study":  # noqa: ARG002 - a stage's signature
        return study.add(trained=None, figures={"algorithm": "none", "engine": "none", "steps": 0})
