"""Resources that `dsrl submit` and the jobs of a sweep request from Slurm."""

import re
from typing import Any

from pydantic import Field, field_validator, model_validator

from dsrl.core.component import Component, Many, component
from dsrl.core.errors import UserError

OWN_FIELDS = {
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "constraint": "constraint",
    "time": "minutes",
    "nodes": "nodes",
    "gpus-per-node": "gpus",
    "cpus-per-task": "cpus",
    "mem": "memory_gb",
    "signal": "warn_seconds",
}
"""Option of sbatch -> the field of `JobRequest` that sets it."""


@component(None)
class JobRequest(Component):
    """Resources of one job. None leaves a value to the cluster's default."""

    partition: str | None = None
    """One name, or several separated by commas: Slurm takes the one that starts the job first."""
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    minutes: int = Field(default=240, ge=1)
    """Time limit."""
    nodes: int = Field(default=1, ge=1)
    gpus: int | None = Field(default=None, ge=0)
    """On each node."""
    cpus: int | None = Field(default=None, ge=1)
    """On each node."""
    memory_gb: int | None = Field(default=None, ge=1)
    """On each node."""
    requeue: bool = True
    """Whether Slurm may requeue a preempted job; finished work is kept."""
    restarts: int = Field(default=3, ge=0)
    """How often a job requeues itself at its time limit."""
    warn_seconds: int = Field(default=120, ge=1)
    """Seconds before the time limit at which the run is interrupted."""
    setup: Many[str] = ()
    """Shell lines that run first on the node, such as `module load cuda`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """More long options of sbatch: {mail-type: END}; true for an option without a value."""

    @field_validator("options")
    @classmethod
    def _check_options(cls, options: dict[str, Any]) -> dict[str, Any]:
        for name in options:
            if not re.fullmatch(r"[a-z][a-z-]*", name):
                raise UserError("slurm.options takes long options of sbatch", got=name, next_step="mail-type: END")
            if name == "output":
                raise UserError("slurm.options.output can't be set: logs go into the run folder")
            if name in OWN_FIELDS:
                raise UserError(f"slurm.options.{name} can't be set here", next_step=f"slurm.{OWN_FIELDS[name]}=...")
        return options

    @model_validator(mode="after")
    def _check_warning(self) -> "JobRequest":
        """A warning right after the start would interrupt every attempt at once."""
        if self.warn_seconds * 2 > self.minutes * 60:
            raise UserError(
                "slurm.warn_seconds: more than half of the job's time",
                got=f"{self.warn_seconds} s of {self.minutes} min",
                next_step=f"slurm.warn_seconds={self.minutes * 30} or less, or raise slurm.minutes",
            )
        return self

    def sbatch(self) -> dict[str, Any]:
        """Long options of sbatch and their values, except for the signal before the time limit."""
        options: dict[str, Any] = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "time": self.minutes,
            "nodes": self.nodes,
            "ntasks-per-node": 1,
            "gpus-per-node": self.gpus,
            "cpus-per-task": self.cpus,
            "mem": f"{self.memory_gb}G" if self.memory_gb else None,
            "requeue" if self.requeue else "no-requeue": True,
            "export": "ALL",  # sites may set SBATCH_EXPORT=NONE; the interpreter's path and API keys must get there
            **self.options,
        }
        return {name: value for name, value in options.items() if value is not None and value is not False}

    def arguments(self) -> list[str]:
        """The options as command line arguments."""
        return [f"--{name}" if value is True else f"--{name}={value}" for name, value in self.sbatch().items()]
