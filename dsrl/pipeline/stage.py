"""A stage: a frozen component that turns one pipeline state into the next, and declares what it needs for that."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from dsrl import prompts
from dsrl.core.component import Component
from dsrl.core.digest import digest
from dsrl.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dsrl.data.task import Task
    from dsrl.llm import Endpoint
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState

EXTERNAL_INPUTS = ("definition", "format", "test", "base")
"""Inputs that no stage writes: the task as the teacher sees it, how answers are asked for and graded, the test set, the
base model."""

SAMPLE_FIELDS = ("probe", "score", "decontaminated")
"""Outputs that are fields of the samples rather than of the state. Other stages can require them as inputs."""


class Stage(Component, ABC):
    """One step of a pipeline. Its key is made of its own key fields, its prompts, and the keys of its inputs."""

    name: ClassVar[str]
    """Folder of its entries in the store."""
    templates: ClassVar[tuple[str, ...]] = ()
    """Prompt templates whose text is part of the key."""
    stored: ClassVar[bool] = True
    """False for a stage that only describes the run, such as the report."""
    runs_after_stop: ClassVar[bool] = False
    """Whether it also runs when the run ends early by `stop_after`."""
    key_by_output: ClassVar[bool] = False
    """Whether later stages are keyed by the content of its outputs instead of by its key: equal content, equal keys."""
    published: ClassVar[tuple[str, ...]] = ()
    """Figures that `metrics.json` also shows at its top, under the stage's name."""
    needs_only_lowest_rates: ClassVar[bool] = False
    """Whether it looks only at the samples with the lowest pass rates, so that the rates of the others may be rough."""
    accepts_images: ClassVar[bool] = True
    """False for a stage that fails on samples with images."""

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

    @property
    def prompted_endpoint(self) -> "Endpoint | None":
        """The endpoint that gets the stage's own prompts; None for a stage that prompts no teacher."""
        return None

    def storage_name(self, name: str) -> str:
        """The name of an input or output in keys and in the store. Stages that do equal work in different roles, such
        as evaluating one model as `trained` and later as `base`, share entries by giving equal names."""
        return name

    def adds_images(self, task: "Task") -> bool:  # noqa: ARG002
        """Whether the samples that it adds have images."""
        return False

    def shows_images(self, task: "Task", *, in_samples: bool) -> bool:  # noqa: ARG002
        """Whether it sends images to its endpoints; `in_samples` tells whether the samples have any."""
        return False

    def summary_metrics(self, name: str, state: "PipelineState") -> dict[str, dict[str, Any]]:
        """Blocks of `metrics.json` that the finished stage fills in; `name` is its name in the pipeline."""
        return {name: {figure: state.figures.get(figure) for figure in self.published}} if self.published else {}

    def pilot(self, count: int) -> "Stage":  # noqa: ARG002
        """This stage on `count` samples only, with the same requests as the whole stage makes for these."""
        return self

    def check_pipeline(self, pipeline: "Mapping[str, Stage]") -> None:
        """Raise `UserError` if it doesn't go together with the other stages."""

    def parts(self) -> dict[str, Any]:
        """What the stage itself contributes to its key."""
        return {"stage": self.key_fields(), "prompts": {name: prompts.source(name) for name in self.templates}}

    def key(self, parents: "Mapping[str, str]") -> str:
        """The address of its result in the store. `parents` maps each input to the key that made it."""
        return digest([self.parts(), dict(parents)], length=20)


def check_chain(pipeline: "Mapping[str, Stage]") -> None:
    """Raise `UserError` if a stage lacks one of its inputs."""
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
        stage.check_pipeline(pipeline)
