"""Base class of all trainings: rows, a job on disk, a child process, a verified model folder."""

import math
import shutil
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from dsrl.core import child_process
from dsrl.core.component import component
from dsrl.core.errors import UserError
from dsrl.data.model import Sampling
from dsrl.data.source import Source
from dsrl.forecast.workload import Workload
from dsrl.pipeline.stage import Stage
from dsrl.stages.train.checkpoints import latest_checkpoint, remove_incomplete
from dsrl.stages.train.flops import TrainingPlan, training_flops
from dsrl.stages.train.job import (
    CHECKPOINTS,
    JOB,
    LOG,
    MODEL,
    PROGRESS,
    TRAIN,
    VALIDATION,
    VERL_CONFIG,
    WORKER_HOSTS,
    TrainingJob,
    TrainingRow,
    write_rows,
)
from dsrl.stages.train.rows import TrainOn, training_rows, validation_rows
from dsrl.stages.train.run_child import (
    no_signal_warnings,
    progress_metrics,
    read_progress,
    run_training,
    truncate_progress,
)

if TYPE_CHECKING:
    from dsrl.forecast.workload import ForecastState, StageForecast
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState

DEFAULT_CHECKPOINTS = 10
"""Number of checkpoints if `checkpoint_every` isn't set."""


PUBLISHED = (
    *("algorithm", "engine", "steps", "reward_first", "reward_last", "readiness", "memory", "rollout_probs_diff_mean"),
)
"""Figures of a training that `metrics.json` shows at its top."""


@component(None)
class Training(Stage):
    """A training in a child process. A killed one resumes from its last checkpoint."""

    name: ClassVar[str] = "train"
    inputs: ClassVar[tuple[str, ...]] = ("samples", "selected", "control", "base", "format")
    outputs: ClassVar[tuple[str, ...]] = ("trained",)
    excluded_from_key: ClassVar[frozenset[str]] = frozenset(("device_batch", "threads", "timeout_minutes"))
    needs_weights: ClassVar[bool] = True
    module: ClassVar[str]
    """Module that the child process runs."""
    engine: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]
    """What the child imports."""
    accepts_images: ClassVar[bool] = False
    published: ClassVar[tuple[str, ...]] = PUBLISHED

    train_on: TrainOn = "selected"
    """`control`: a random set of the same size; `gold`: as many rows of the task's labelled data."""
    gold: Source | None = None
    """The labelled data; read only for `train_on: gold`."""
    validation: int = Field(default=64, ge=0)
    """Synthetic samples held out to choose a checkpoint, neither selected nor in the control set."""
    validation_replies: int = Field(default=4, gt=0)
    """Replies to each held-out sample at every checkpoint."""
    validation_temperature: float = Field(default=0.7, ge=0)
    checkpoint_every: int | None = Field(default=None, gt=0)
    """Updates between checkpoints; None: a tenth of the training."""
    keep: Literal["best", "last"] = "best"
    """Which checkpoint becomes the trained model: the best on the held-out samples (the later on ties), or the last."""
    seed: int = 0
    device_batch: int | None = Field(default=None, gt=0)
    """Most replies on the device at a time; None: a whole update. Lower it when memory runs out."""
    threads: int | None = Field(default=None, gt=0)
    """CPU threads; None: one per core, a single one for tiny models."""
    timeout_minutes: float = Field(default=60.0, gt=0)
    """The training is killed after this long without a step."""

    @property
    @abstractmethod
    def label(self) -> str:
        """The algorithm's name."""

    def rows(self, state: "PipelineState", context: "Context") -> tuple[TrainingRow, ...]:  # noqa: ARG002
        """The rows to train on. Raises `StageFailed` if there are none."""
        return training_rows(state, self.train_on, self.gold, self.seed)

    @abstractmethod
    def plan_steps(self, num_rows: int) -> tuple[int, int]:
        """Number of updates, and rows per update. Raises `UserError` for too few rows."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Hyper-parameters for the child."""

    @abstractmethod
    def max_tokens(self) -> int:
        """Maximum length of a reply."""

    @abstractmethod
    def replies_per_row(self) -> int:
        """Replies drawn for each row of an update; 0 for supervised training."""

    def check(self) -> None:
        """The child's packages are installed, and `train_on: gold` has labelled data without images."""
        child_process.require(*self.packages)
        if self.train_on != "gold":
            return
        if self.gold is None or not self.gold.path:
            raise UserError(
                "train.train_on=gold needs labelled data",
                got="a task without `gold`",
                next_step="give task.gold.path=FILE task.gold.input=... task.gold.output=...",
            )
        if self.gold.images:
            raise UserError(
                "train.train_on=gold doesn't support images",
                got=f"task.gold.images={self.gold.images}",
                next_step="give pipeline=synthrl select=seeds_only, which trains on labelled questions with images",
            )

    def forecast(self, before: "ForecastState") -> "StageForecast":
        """The updates, and the replies to held-out samples at every checkpoint."""
        settings = self.settings()
        plan = TrainingPlan(
            plan_steps=self.plan_steps,
            replies_per_row=self.replies_per_row(),
            max_tokens=self.max_tokens(),
            checkpoint_every=self.checkpoint_every,
            validation=self.validation,
            validation_replies=self.validation_replies,
            kl=bool(settings.get("kl")),
            critic="critic_learning_rate" in settings,
        )
        return before.forecast(Workload(role="model", flops=training_flops(plan, before), basis="assumptions"))

    def interpreter(self) -> str | None:
        """The Python of the child's environment; None: this one."""
        return None

    @contextmanager
    def provision(self, job: TrainingJob, context: "Context") -> Iterator[tuple[TrainingJob, dict[str, str]]]:  # noqa: ARG002
        """Provide what the training runs on; yields the job with its final settings, and environment variables for the
        child."""
        yield job, {}

    def predict(
        self,
        state: "PipelineState",  # noqa: ARG002
        rows: Sequence[TrainingRow],  # noqa: ARG002
        job: TrainingJob,  # noqa: ARG002
        context: "Context",  # noqa: ARG002
    ) -> dict[str, Any]:
        """Predictions about the training, shown to the user before it starts and kept among its metrics."""
        return {}

    def evaluate_progress(self, progress: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], list[str]]:
        """The engine's own metrics and warnings after the training."""
        return {}, no_signal_warnings(progress)

    def parts(self) -> dict[str, Any]:
        """Labelled data count by content, and only if they are trained on."""
        parts = super().parts()
        used = self.gold if self.train_on == "gold" else None
        parts["stage"]["gold"] = used.fingerprint() if used else None
        return parts

    def __call__(self, state: "PipelineState", context: "Context") -> "PipelineState":
        started = time.monotonic()
        rows = self.rows(state, context)
        held_out = validation_rows(state, self.validation, self.seed)
        job = self._job(state, rows, held_out, context)
        predicted = self.predict(state, rows, job, context)
        with self.provision(job, context) as (job, variables):
            result = run_training(
                self.module, job, self.threads, self.timeout_minutes, context, self.interpreter(), variables
            )
        shutil.move(job.path(MODEL), context.scratch / MODEL)
        for name in (JOB, TRAIN, VALIDATION, PROGRESS, LOG, VERL_CONFIG, WORKER_HOSTS):
            if job.path(name).is_file():
                shutil.copy(job.path(name), context.scratch / name)
        progress = read_progress(job.path(PROGRESS))
        own_metrics, warnings = self.evaluate_progress(progress)
        if self.keep == "best" and not held_out:
            warnings.append("no sample was left to hold out, so the last checkpoint was kept; raise n or lower m")
        for warning in warnings:
            context.progress.warn(f"train: {warning}")
        metrics = {
            "algorithm": self.label,
            "engine": self.engine,
            "steps": job.steps,
            "chosen_step": result["step"],
            "rows": {"in": len(state.samples), "out": len(rows)},
            "train_on": self.train_on,
            "held_out": len(held_out),
            **progress_metrics(progress),
            **own_metrics,
            "warnings": warnings,
            **predicted,
            "seconds": round(time.monotonic() - started, 1),
        }
        trained = replace(job.model, name=f"{job.model.name}+{self.label}", path=MODEL, revision=None)
        return state.add(trained=trained, figures=metrics)

    def _job(
        self,
        state: "PipelineState",
        rows: tuple[TrainingRow, ...],
        held_out: tuple[TrainingRow, ...],
        context: "Context",
    ) -> TrainingJob:
        """The job, with its rows on disk and the leftovers of a killed training removed."""
        assert state.base is not None
        folder, checkpoints = context.work, context.work / CHECKPOINTS
        remove_incomplete(checkpoints)
        latest = latest_checkpoint(checkpoints)
        truncate_progress(folder / PROGRESS, latest.step if latest else -1)
        write_rows(folder / TRAIN, rows)
        write_rows(folder / VALIDATION, held_out)
        steps, per_step = self.plan_steps(len(rows))
        return TrainingJob(
            folder=str(folder.resolve()),
            model=state.base.locate(),
            algorithm=self.label,
            settings=self.settings(),
            grader=state.task.answer.key_fields(),
            steps=steps,
            rows_per_step=per_step,
            seed=self.seed,
            checkpoint_every=self.checkpoint_every or math.ceil(steps / DEFAULT_CHECKPOINTS),
            validation=Sampling(temperature=self.validation_temperature, max_tokens=self.max_tokens()),
            validation_replies=self.validation_replies,
            keep=self.keep,
            device_batch=self.device_batch,
            images=str(context.images.folder.resolve()),
            resume=str(latest.folder.resolve()) if latest else None,
        )


@component("stages.train.none")
class NoTraining(Stage):
    """Leaves the base model untrained: for data sets, measurements and served models."""

    name: ClassVar[str] = "train"
    inputs = ()
    outputs = ("trained",)
    published: ClassVar[tuple[str, ...]] = PUBLISHED

    def forecast(self, before: "ForecastState") -> "StageForecast":
        return before.forecast(Workload(), trains=False)

    def __call__(self, state: "PipelineState", context: "Context") -> "PipelineState":  # noqa: ARG002 - a stage's signature
        return state.add(trained=None, figures={"algorithm": "none", "engine": "none", "steps": 0})
