"""What all trainings share: rows, a job on disk, a child process, a checked model folder."""

import math
import shutil
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from dsrl.core import child_process
from dsrl.core.component import component
from dsrl.core.errors import UserError
from dsrl.data.model import Sampling
from dsrl.data.source import Source
from dsrl.forecast.workload import Load
from dsrl.pipeline.stage import Stage
from dsrl.stages.train import checkpoints, progress
from dsrl.stages.train.flops import training_flops
from dsrl.stages.train.job import (
    CHECKPOINTS,
    JOB,
    LOG,
    MODEL,
    PROGRESS,
    TRAIN,
    TREE,
    VALIDATION,
    WORKERS,
    Job,
    Row,
    write_rows,
)
from dsrl.stages.train.rows import TrainOn, training_rows, validation_rows
from dsrl.stages.train.run_child import train

if TYPE_CHECKING:
    from dsrl.forecast.workload import Expectation, Outlook
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState

CHECKPOINTS_BY_DEFAULT = 10
"""In a training whose settings don't say how often."""


@component(None)
class Training(Stage):
    """A training in a child process, which goes on from its last checkpoint when it was killed."""

    name: ClassVar[str] = "train"
    inputs: ClassVar[tuple[str, ...]] = ("samples", "selected", "control", "base", "format")
    outputs: ClassVar[tuple[str, ...]] = ("trained",)
    excluded_from_key: ClassVar[frozenset[str]] = frozenset(("device_batch", "threads", "timeout_minutes"))
    needs_weights: ClassVar[bool] = True
    module: ClassVar[str]
    """The child's program."""
    engine: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]
    """What the child imports."""
    pictures: ClassVar[bool] = False
    """Whether it can learn from samples with pictures."""

    train_on: TrainOn = "selected"
    """`control`: a random set of the same size; `gold`: as many of the task's own labelled data."""
    gold: Source | None = None
    """The labelled data, read only for `train_on: gold`."""
    validation: int = Field(default=64, ge=0)
    """Synthetic samples held out to choose a checkpoint, neither selected nor in the control set."""
    validation_replies: int = Field(default=4, gt=0)
    """Replies to each of them at every checkpoint."""
    validation_temperature: float = Field(default=0.7, ge=0)
    checkpoint_every: int | None = Field(default=None, gt=0)
    """Updates between checkpoints; None: a tenth of the training."""
    keep: Literal["best", "last"] = "best"
    """Which checkpoint becomes the trained model: the best on the held-out samples (ties to the later), or the last."""
    seed: int = 0
    device_batch: int | None = Field(default=None, gt=0)
    """Replies held on the device at a time; None: a whole update. Lower it when memory runs out."""
    threads: int | None = Field(default=None, gt=0)
    """CPU threads; None: one a core, a single one for tiny models."""
    timeout_minutes: float = Field(default=60.0, gt=0)
    """Without any step for so long, the training is taken for dead."""

    @property
    @abstractmethod
    def label(self) -> str:
        """The algorithm's name."""

    def rows(self, state: "PipelineState", context: "Context") -> tuple[Row, ...]:  # noqa: ARG002
        """What is trained on."""
        return training_rows(state, self.train_on, self.gold, self.seed)

    @abstractmethod
    def usable(self, rows: tuple[Row, ...]) -> tuple[Row, ...]:
        """The rows that can be trained on. Raises `UserError` where there is none."""

    @abstractmethod
    def plan(self, num_rows: int) -> tuple[int, int]:
        """Updates, and rows in each. Raises `UserError` for too few rows."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Hyper-parameters for the child."""

    @abstractmethod
    def max_tokens(self) -> int:
        """Longest reply."""

    def check(self) -> None:
        """The packages must be there, and labelled data named to be trained on."""
        child_process.require(*self.packages)
        if self.train_on == "gold" and (self.gold is None or not self.gold.path):
            raise UserError(
                "train.train_on=gold needs labelled data",
                got="a task without `gold`",
                next_step="give task.gold.path=FILE task.gold.input=... task.gold.output=...",
            )
        if self.train_on == "gold" and self.gold is not None and self.gold.images:
            raise UserError(
                "train.train_on=gold doesn't show the pictures of labelled data",
                got=f"task.gold.images={self.gold.images}",
                next_step="give pipeline=synthrl select=seeds_only, which trains on labelled questions and shows them",
            )

    @abstractmethod
    def replies_per_row(self) -> int:
        """Replies drawn for each row of an update; 0: none are drawn, the solution is learned from."""

    def expect(self, outlook: "Outlook") -> "Expectation":
        """The updates, and the replies to held-out samples at every checkpoint."""
        return outlook.expects(Load(role="model", flops=training_flops(self, outlook), basis="assumptions"))

    def interpreter(self) -> str | None:
        """The Python of the environment in which the child runs; None: this one."""
        return None

    def variables(self) -> dict[str, str]:
        """What goes into the child's environment."""
        return {}

    @contextmanager
    def placed(self, job: Job, context: "Context") -> Iterator[tuple[Job, dict[str, str]]]:  # noqa: ARG002
        """The job with what is known only once the place where it runs is there, and what goes into the child's
        environment."""
        yield job, self.variables()

    def foretell(self, state: "PipelineState", rows: Sequence[Row], job: Job, context: "Context") -> dict[str, Any]:  # noqa: ARG002
        """What can be said of the training before it runs: told at once, and kept among its figures."""
        return {}

    def judge(self, course: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], list[str]]:
        """Figures of the engine's own, and what to warn of, once it has run."""
        return {}, progress.warnings(course)

    def parts(self) -> dict[str, Any]:
        """Labelled data count by their content, and only where they are trained on."""
        parts = super().parts()
        used = self.gold if self.train_on == "gold" else None
        parts["stage"]["gold"] = used.fingerprint() if used else None
        return parts

    def __call__(self, state: "PipelineState", context: "Context") -> "PipelineState":
        started = time.monotonic()
        rows = self.usable(self.rows(state, context))
        held_out = validation_rows(state, self.validation, self.seed)
        job = self._job(state, rows, held_out, context)
        foretold = self.foretell(state, rows, job, context)
        with self.placed(job, context) as (job, variables):
            result = train(self.module, job, self.threads, self.timeout_minutes, context, self.interpreter(), variables)
        _deliver(job, context.scratch)
        figures = {**self._figures(job, result, len(state.samples), rows, held_out), **foretold}
        for warning in figures["warnings"]:
            context.progress.warn(f"train: {warning}")
        trained = replace(job.model, name=f"{job.model.name}+{self.label}", path=MODEL, revision=None)
        return state.add(trained=trained, figures={**figures, "seconds": round(time.monotonic() - started, 1)})

    def _job(self, state: "PipelineState", rows: Sequence[Row], held_out: Sequence[Row], context: "Context") -> Job:
        """Written down whole before anything starts."""
        assert state.base is not None
        folder, places = context.work, context.work / CHECKPOINTS
        checkpoints.sweep(places)
        latest = checkpoints.latest(places)
        progress.cut(folder / PROGRESS, latest.step if latest else -1)
        write_rows(folder / TRAIN, tuple(rows))
        write_rows(folder / VALIDATION, tuple(held_out))
        steps, per_step = self.plan(len(rows))
        return Job(
            folder=str(folder.resolve()),
            model=state.base.locate(),
            algorithm=self.label,
            settings=self.settings(),
            grader=state.task.answer.key_fields(),
            steps=steps,
            rows_per_step=per_step,
            seed=self.seed,
            checkpoint_every=self.checkpoint_every or math.ceil(steps / CHECKPOINTS_BY_DEFAULT),
            validation=Sampling(temperature=self.validation_temperature, max_tokens=self.max_tokens()),
            validation_replies=self.validation_replies,
            keep=self.keep,
            device_batch=self.device_batch,
            images=str(context.images.folder.resolve()),
            resume=str(latest.folder.resolve()) if latest else None,
        )

    def _figures(
        self, job: Job, result: dict[str, Any], num_samples: int, rows: Sequence[Row], held_out: Sequence[Row]
    ) -> dict[str, Any]:
        course = progress.read(job.path(PROGRESS))
        own, warnings = self.judge(course)
        if self.keep == "best" and not held_out:
            warnings.append("no sample was left to hold out, so the last checkpoint was kept; raise n or lower m")
        return {
            "algorithm": self.label,
            "engine": self.engine,
            "steps": job.steps,
            "chosen_step": result["step"],
            "rows": {"in": num_samples, "out": len(rows)},
            "train_on": self.train_on,
            "held_out": len(held_out),
            **progress.figures(course),
            **own,
            "warnings": warnings,
        }


def _deliver(job: Job, scratch: Path) -> None:
    """Into the store entry: the model, and all that says how it was made."""
    shutil.move(job.path(MODEL), scratch / MODEL)
    for name in (JOB, TRAIN, VALIDATION, PROGRESS, LOG, TREE, WORKERS):
        if job.path(name).is_file():
            shutil.copy(job.path(name), scratch / name)
