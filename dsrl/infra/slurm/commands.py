"""Slurm as its own commands show it. Answers come as text, in formats that we ask for."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dsrl.core.errors import UserError
from dsrl.infra.slurm.request import JobRequest

SECONDS = 20.0
"""Longest wait for an answer."""
FORGOTTEN = "FORGOTTEN"
"""Our own word for a job that is neither in the queue nor in the accounts any more."""
OVER = frozenset(
    (
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
        *("TIMEOUT", FORGOTTEN),
    )
)
"""States of a job that has ended; PREEMPTED only where it isn't put back into the queue."""
UNITS = {"days": 1440, "hours": 60, "minutes": 1}
TIME = re.compile(r"(?:(?:(?P<days>\d+)-)?(?P<hours>\d+):)?(?P<minutes>\d+):\d+")


@dataclass(frozen=True)
class Partition:
    """A queue of jobs and the nodes behind it."""

    name: str
    is_default: bool
    minutes: int | None
    """Longest time limit; None: none."""
    nodes: int
    gpus: int
    """Most on one node."""

    def __str__(self) -> str:
        limit = f", up to {self.minutes} min" if self.minutes else ""
        return f"{self.name}{' (default)' if self.is_default else ''}: {self.nodes} nodes, {self.gpus} GPUs each{limit}"


@dataclass(frozen=True)
class State:
    """How a job stands. `reason`: why it waits; `exit_code`: its own and the signal that ended it, `2:0`."""

    name: str
    reason: str = ""
    exit_code: str = ""

    @property
    def over(self) -> bool:
        return self.name in OVER

    def __str__(self) -> str:
        return " ".join(filter(None, (self.name, self.exit_code, f"({self.reason})" if self.reason else "")))


def allocation(environment: Mapping[str, str] = os.environ) -> str | None:
    """The Slurm job that we are in, if any."""
    return environment.get("SLURM_JOB_ID")


def require(command: str = "sbatch") -> None:
    """Raises `UserError` where there is no Slurm."""
    if shutil.which(command) is None:
        raise UserError(
            "there is no Slurm on this machine",
            got=f"no {command} on the PATH",
            next_step="go to a login node of a cluster (module load slurm?), or run without Slurm: dsrl ...",
        )


def refuse_nesting(what: str) -> None:
    """One allocation for a run: from inside of one, no other is asked for."""
    if job := allocation():
        raise UserError(
            f"{what} asks Slurm for an allocation, but this is one already",
            got=f"SLURM_JOB_ID={job}",
            next_step="leave it out: dsrl ... runs in this allocation",
        )


def ask(*command: str) -> str:
    """What a command of Slurm prints. Raises `UserError` with its own words where it fails."""
    require(command[0])
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"Slurm doesn't answer: {command[0]} took more than {SECONDS:g} s", next_step="is its controller up? sinfo"
        ) from error
    if done.returncode != 0:
        said = done.stderr.strip() or f"exit code {done.returncode}"
        raise UserError(f"{command[0]} failed", got=said, next_step="is Slurm up? sinfo shows it")
    return done.stdout


def partitions() -> list[Partition]:
    """Those that we may see."""
    found: dict[str, Partition] = {}
    for line in ask("sinfo", "--noheader", "--format=%P|%l|%D|%G").splitlines():
        label, limit, nodes, resources = line.split("|")
        name = label.rstrip("*")
        known = found.get(name, Partition(name, label.endswith("*"), minutes(limit), 0, 0))
        gpus = max(known.gpus, num_gpus(resources))
        found[name] = Partition(name, known.is_default, known.minutes, known.nodes + int(nodes), gpus)
    return list(found.values())


def minutes(limit: str) -> int | None:
    """`1-12:00:00` -> 2160; a limit of none, or one that we can't read, is None."""
    match = TIME.fullmatch(limit.strip())
    if match is None:
        return None
    return sum(int(match[unit] or 0) * size for unit, size in UNITS.items())


def num_gpus(resources: str) -> int:
    """`gpu:a100:4(S:0-1),gpu:2` -> 6."""
    bare = re.sub(r"\([^)]*\)", "", resources)
    return sum(int(count) for count in re.findall(r"\bgpu(?::[^:,]+)?:(\d+)", bare))


def check(request: JobRequest) -> None:
    """What Slurm would refuse, or keep waiting for ever. Raises `UserError`."""
    require()
    known = partitions()
    chosen = next(
        (one for one in known if one.name == request.partition or (request.partition is None and one.is_default)), None
    )
    if chosen is None:
        raise UserError(
            "slurm.partition: this cluster has no such partition"
            if request.partition
            else "slurm.partition is missing: this cluster has no default",
            got=request.partition,
            allowed=[one.name for one in known] or "none",
            next_step="slurm.partition=NAME; sinfo shows them",
        )
    wanted: list[tuple[str, int, int | None]] = [
        ("minutes", request.minutes, chosen.minutes),
        ("nodes", request.nodes, chosen.nodes),
        ("gpus", request.gpus or 0, chosen.gpus),
    ]
    for name, value, most in wanted:
        if most is not None and value > most:
            raise UserError(
                f"slurm.{name}: more than partition {chosen.name} has", got=value, allowed=f"up to {most}",
                next_step=f"slurm.{name}={most}, or another slurm.partition",
            )  # fmt: skip


def states(jobs: Iterable[str]) -> dict[str, State]:
    """How jobs stand: as the queue says, and of those that have left it, the accounts. What nobody remembers is left
    out."""
    wanted = list(jobs)
    found = _queued(wanted)
    return {**found, **_accounted([job for job in wanted if job not in found or found[job].over])}


def _queued(jobs: list[str]) -> dict[str, State]:
    if not jobs:
        return {}
    lines = ask("squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r").splitlines()
    found = {name: State(state, "" if reason == "None" else reason) for name, state, reason in _rows(lines, 3)}
    return {job: found[job] for job in jobs if job in found}


def _accounted(jobs: list[str]) -> dict[str, State]:
    if not jobs or shutil.which("sacct") is None:
        return {}
    try:
        text = ask(
            "sacct",
            "--noheader",
            "--parsable2",
            "--allocations",
            f"--jobs={','.join(jobs)}",
            "--format=JobID,State,ExitCode",
        )
    except UserError:  # a cluster without accounting
        return {}
    return {name: State(state.split()[0], exit_code=code) for name, state, code in _rows(text.splitlines(), 3) if state}


def _rows(lines: Iterable[str], columns: int) -> list[list[Any]]:
    return [parts for line in lines if len(parts := line.strip().split("|")) == columns]
