"""Queries to Slurm through its own commands, with explicit output formats."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dsrl.core.errors import UserError
from dsrl.infra.slurm.request import JobRequest

TIMEOUT_SECONDS = 20.0
FORGOTTEN = "FORGOTTEN"
"""State, not one of Slurm's, of a job that is neither in the queue nor in the accounting database."""
OVER = frozenset(
    (
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
        *("TIMEOUT", FORGOTTEN),
    )
)
"""States of a job that has ended; PREEMPTED only if it isn't requeued."""
MINUTES_PER_UNIT = {"days": 1440, "hours": 60, "minutes": 1}
TIME = re.compile(r"(?:(?:(?P<days>\d+)-)?(?P<hours>\d+):)?(?P<minutes>\d+):\d+")


@dataclass(frozen=True)
class Partition:
    """A partition and its nodes."""

    name: str
    is_default: bool
    minutes: int | None
    """Maximum time limit; None if there is none."""
    nodes: int
    gpus: int
    """Maximum on one node."""

    def __str__(self) -> str:
        limit = f", up to {self.minutes} min" if self.minutes else ""
        return f"{self.name}{' (default)' if self.is_default else ''}: {self.nodes} nodes, {self.gpus} GPUs each{limit}"


@dataclass(frozen=True)
class JobState:
    """State of a job. `reason`: why it is pending; `exit_code`: `code:signal`, as `2:0`."""

    name: str
    reason: str = ""
    exit_code: str = ""

    @property
    def over(self) -> bool:
        return self.name in OVER

    def __str__(self) -> str:
        return " ".join(filter(None, (self.name, self.exit_code, f"({self.reason})" if self.reason else "")))


def allocation(environment: Mapping[str, str] = os.environ) -> str | None:
    """Number of the Slurm job that this process runs in; None outside of Slurm."""
    return environment.get("SLURM_JOB_ID")


def require(command: str = "sbatch") -> None:
    """Raise `UserError` if this command of Slurm isn't installed."""
    if shutil.which(command) is None:
        raise UserError(
            "Slurm isn't installed on this machine",
            got=f"no {command} on the PATH",
            next_step="log in to a node of the cluster (or `module load slurm`), or run without Slurm: dsrl ...",
        )


def refuse_nesting(what: str) -> None:
    """Raise `UserError` inside an allocation, where `what` would request another one."""
    if job := allocation():
        raise UserError(
            f"{what} requests a Slurm allocation, but this process runs in one already",
            got=f"SLURM_JOB_ID={job}",
            next_step="run `dsrl ...` without it: it uses this allocation",
        )


def ask(*command: str) -> str:
    """Standard output of a Slurm command. Raises `UserError` with its error message if it fails."""
    require(command[0])
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"Slurm doesn't answer: {command[0]} took more than {TIMEOUT_SECONDS:g} s",
            next_step="run `sinfo` to see whether its controller is up",
        ) from error
    if done.returncode != 0:
        message = done.stderr.strip() or f"exit code {done.returncode}"
        raise UserError(f"{command[0]} failed", got=message, next_step="run `sinfo` to see whether Slurm is up")
    return done.stdout


def partitions() -> list[Partition]:
    """The partitions that this user may see."""
    found: dict[str, Partition] = {}
    for line in ask("sinfo", "--noheader", "--format=%P|%l|%D|%G").splitlines():
        label, limit, nodes, resources = line.split("|")
        name = label.rstrip("*")
        known = found.get(name, Partition(name, label.endswith("*"), minutes(limit), 0, 0))
        gpus = max(known.gpus, num_gpus(resources))
        found[name] = Partition(name, known.is_default, known.minutes, known.nodes + int(nodes), gpus)
    return list(found.values())


def minutes(limit: str) -> int | None:
    """Parse a time limit: `1-12:00:00` -> 2160; None for `infinite` and anything else."""
    match = TIME.fullmatch(limit.strip())
    if match is None:
        return None
    return sum(int(match[unit] or 0) * size for unit, size in MINUTES_PER_UNIT.items())


def num_gpus(resources: str) -> int:
    """Count the GPUs of generic resources: `gpu:a100:4(S:0-1),gpu:2` -> 6."""
    bare = re.sub(r"\([^)]*\)", "", resources)
    return sum(int(count) for count in re.findall(r"\bgpu(?::[^:,]+)?:(\d+)", bare))


def check(request: JobRequest) -> None:
    """Raise `UserError` for a request that Slurm would reject or leave pending for ever."""
    require()
    known = {partition.name: partition for partition in partitions()}
    if request.partition is None:
        choices = [partition for partition in known.values() if partition.is_default]
    else:
        names = request.partition.split(",")  # Slurm takes whichever starts the job first
        choices = [known[name] for name in names if name in known] if known.keys() >= set(names) else []
    if not choices:
        raise UserError(
            "slurm.partition: this cluster has no such partition"
            if request.partition
            else "slurm.partition is missing: this cluster has no default",
            got=request.partition,
            allowed=list(known) or "none",
            next_step="slurm.partition=NAME; sinfo lists them",
        )
    limits: list[tuple[str, int, list[int | None]]] = [
        ("minutes", request.minutes, [partition.minutes for partition in choices]),
        ("nodes", request.nodes, [partition.nodes for partition in choices]),
        ("gpus", request.gpus or 0, [partition.gpus for partition in choices]),
    ]
    for name, value, allowed in limits:
        if all(limit is not None and value > limit for limit in allowed):
            most = max(limit for limit in allowed if limit is not None)
            raise UserError(
                f"slurm.{name}: more than partition {', '.join(one.name for one in choices)} has",
                got=value,
                allowed=f"up to {most}",
                next_step=f"slurm.{name}={most}, or another slurm.partition",
            )


def states(jobs: Iterable[str]) -> dict[str, JobState]:
    """States of jobs: from the queue, and from the accounting database for those that have left it. Jobs that neither
    knows are missing from the result."""
    jobs = list(jobs)
    found = _queue(jobs)
    return {**found, **_accounting([job for job in jobs if job not in found or found[job].over])}


def _queue(jobs: list[str]) -> dict[str, JobState]:
    if not jobs:
        return {}
    # not --jobs=...: squeue fails as soon as one of them has left the queue
    lines = ask("squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i|%T|%r").splitlines()
    found = {name: JobState(state, "" if reason == "None" else reason) for name, state, reason in _columns(lines, 3)}
    return {job: found[job] for job in jobs if job in found}


def _accounting(jobs: list[str]) -> dict[str, JobState]:
    if not jobs or shutil.which("sacct") is None:
        return {}
    output = ("--noheader", "--parsable2", "--allocations", "--format=JobID,State,ExitCode")
    try:
        lines = ask("sacct", *output, f"--jobs={','.join(jobs)}").splitlines()
    except UserError:  # a cluster without accounting
        return {}
    return {name: JobState(state.split()[0], exit_code=code) for name, state, code in _columns(lines, 3) if state}


def _columns(lines: Iterable[str], count: int) -> list[list[Any]]:
    return [cells for line in lines if len(cells := line.strip().split("|")) == count]
