"""What a stage is: a frozen description that, when called, turns one state into the next."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from dsrl import prompts
from dsrl.core.component import Component
from dsrl.core.digest import digest
from dsrl.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dsrl.forecast.workload import Expectation, Outlook
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState

EXTERNAL_INPUTS = ("definition", "format", "test", "base")
"""What is there before the first stage: the task as told to the teacher, how answers are asked for and graded, the
test set, and the base model."""

SAMPLE_FIELDS = ("probe", "score", "decontaminated")
"""What a stage may add to samples that are there: no fields of the state, but other stages need them."""


class Stage(Component, ABC):
    """One step of a pipeline. Its key is made of its identity, its prompts and the keys of what it needs."""

    name: ClassVar[str]
    """Folder of its entries in the store."""
    templates: ClassVar[tuple[str, ...]] = ()
    """Prompt templates whose text takes part in the key."""
    stored: ClassVar[bool] = True
    """False for a stage that only looks at things, such as the report."""
    key_by_output: ClassVar[bool] = False
    """Whether later stages go by the content of what it wrote, whatever led to it: equal content, equal keys."""

    @property
    @abstractmethod
    def inputs(self) -> tuple[str, ...]:
        """Fields of the pipeline state, or external inputs, that it reads. Most stages set a class attribute."""

    @property
    @abstractmethod
    def outputs(self) -> tuple[str, ...]:
        """Fields of the pipeline state that it fills in or changes. Most stages set a class attribute."""

    @abstractmethod
    def __call__(self, state: "PipelineState", context: "Context") -> "PipelineState":
        """Do the work."""

    def storage_name(self, name: str) -> str:
        """The name under which something read or written is known in the store: equal work in another role, such as
        the measuring of one model as `trained` and then as `base`, shares its entry."""
        return name

    def expect(self, outlook: "Outlook") -> "Expectation":
        """What it will ask for and leave behind, foretold from what is known before it runs, without asking anybody.
        A stage that doesn't say is shown without figures by `dsrl plan`."""
        return outlook.expects()

    @property
    def asks(self) -> bool:
        """Whether it sends requests to a teacher."""
        return hasattr(self, "teacher")

    def pilot(self, count: int) -> "Stage":  # noqa: ARG002
        """This stage on so many samples only, with the same requests as the whole stage makes for these."""
        return self

    def check(self) -> None:
        """Cheap tests before any work starts; raises `UserError`."""

    def check_beside(self, pipeline: "Mapping[str, Stage]") -> None:
        """Whether it suits the other stages; raises `UserError`."""

    def parts(self) -> dict[str, Any]:
        """Everything of its own that the key is made of."""
        return {"stage": self.key_fields(), "prompts": {name: prompts.source(name) for name in self.templates}}

    def key(self, parents: "Mapping[str, str]") -> str:
        """The address of its result in the store; `parents` maps what it needs to the key that made it."""
        return digest([self.parts(), dict(parents)], length=20)


def check_chain(pipeline: "Mapping[str, Stage]") -> None:
    """Refuse a pipeline whose stage lacks what it needs. Raises `UserError`."""
    known = set(EXTERNAL_INPUTS)
    for name, stage in pipeline.items():
        for need in stage.inputs:
            if need not in known:
                later = [other for other, candidate in pipeline.items() if need in candidate.outputs]
                cure = f"move `{later[0]}` before `{name}`" if later else f"add a stage that writes `{need}`"
                raise UserError(
                    f"pipeline: stage `{name}` needs `{need}`, which no earlier stage writes",
                    got=" -> ".join(pipeline),
                    next_step=cure,
                )
        known.update(stage.outputs)
    for stage in pipeline.values():
        stage.check_beside(pipeline)
