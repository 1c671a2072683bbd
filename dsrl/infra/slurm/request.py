"""What is asked of Slurm, for `dsrl submit` and for every job of a sweep."""

import re
from typing import Any

from pydantic import Field, field_validator, model_validator

from dsrl.core.component import Component, Many, component
from dsrl.core.errors import UserError

OURS = {
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
    "output": "no dial, logs go into the run folder",
}
"""Options of sbatch that have a dial of their own here."""


@component(None)
class JobRequest(Component):
    """Resources of one job. None leaves a thing to the cluster's own default."""

    partition: str | None = None
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
    """Whether Slurm may put a preempted job back into the queue; what was done is kept."""
    restarts: int = Field(default=3, ge=0)
    """Times that a job whose time is up puts itself back into the queue."""
    warn_seconds: int = Field(default=120, ge=1)
    """Before the time is up: the run ends tidily then."""
    setup: Many[str] = ()
    """Shell lines that run first on the node, such as `module load cuda`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further options of sbatch, by their long names: {mail-type: END}; true for one without a value."""

    @field_validator("options")
    @classmethod
    def _no_second_place(cls, options: dict[str, Any]) -> dict[str, Any]:
        for name in options:
            if not re.fullmatch(r"[a-z][a-z-]*", name):
                raise UserError("slurm.options: not a long option of sbatch", got=name, next_step="mail-type: END")
            if name in OURS:
                raise UserError(f"slurm.options.{name} has a dial of its own", next_step=f"slurm.{OURS[name]}=...")
        return options

    @model_validator(mode="after")
    def _in_time(self) -> "JobRequest":
        """A warning that comes with the start would end the run at once, again and again."""
        if self.warn_seconds * 2 > self.minutes * 60:
            raise UserError(
                "slurm.warn_seconds: more than half of the job's time",
                got=f"{self.warn_seconds} s of {self.minutes} min",
                next_step=f"slurm.warn_seconds={self.minutes * 30} or less, or more slurm.minutes",
            )
        return self

    def sbatch(self) -> dict[str, Any]:
        """Long options of sbatch and their values, without those that say how a job is told that its time is up."""
        found: dict[str, Any] = {
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
            **self.options,
        }
        return {name: value for name, value in found.items() if value is not None and value is not False}

    def arguments(self) -> list[str]:
        """The same as words of a command line."""
        return [f"--{name}" if value is True else f"--{name}={value}" for name, value in self.sbatch().items()]
