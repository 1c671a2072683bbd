"""How one run stands: what its folder says, checked against Slurm or the process table."""

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsrl.core.errors import UserError
from dsrl.infra.slurm.commands import FORGOTTEN, JobState, states
from dsrl.pipeline.run_folder import shown
from dsrl.pipeline.run_status import read


@dataclass(frozen=True)
class Look:
    """A run as seen from outside."""

    folder: Path
    status: str
    """As in `status.json`; `queued` before it began; `killed` of one that says it runs, and doesn't."""
    died: bool
    """Whether it ended without a word, so that others may still take it for running."""
    job: str | None = None
    slurm: JobState | None = None
    stage: str | None = None
    """Finished last."""
    reason: str | None = None
    log: Path | None = None

    def __str__(self) -> str:
        job = f"job {self.job}: {self.slurm or 'not known to Slurm'}" if self.job else ""
        stage = f"after {self.stage}" if self.stage and self.status != "finished" else ""
        return f"{self.status:<12} {shown(self.folder.absolute())}  {'  '.join(filter(None, (stage, job)))}".rstrip()


def look_at(folders: Sequence[Path], *, ask: bool = True) -> list[Look]:
    """Each of these runs; Slurm is asked once for all, if any of them is a job."""
    said = [(folder, read(folder), _submission(folder)) for folder in folders]
    jobs = {folder: _job(own, sent) for folder, own, sent in said}
    known = _states([job for job in jobs.values() if job]) if ask else {}
    return [_look(folder, own, jobs[folder], known) for folder, own, _ in said]


def _look(folder: Path, said: dict[str, Any], job: str | None, known: dict[str, JobState]) -> Look:
    slurm = known.get(job) if job else None
    status = said.get("status", "queued")
    dead = status == "running" and not alive(said, slurm)
    if status == "queued" and slurm is not None and slurm.over:
        status = "killed"  # before it began
    if status == "interrupted" and slurm is not None and not slurm.over:
        status = "queued"
    return Look(
        folder=folder,
        status="killed" if dead else status,
        died=dead,
        job=job,
        slurm=slurm,
        stage=last_stage(folder),
        reason=said.get("reason"),
        log=_log(folder, job),
    )


def alive(said: dict[str, Any], slurm: JobState | None) -> bool:
    """Whether a run that says it runs does. In doubt, as with one on another machine without Slurm, it does."""
    if said.get("slurm_job"):
        return slurm is None or not slurm.over
    if said.get("host") != socket.gethostname():
        return True
    return _is_ours(int(said.get("pid", 0)), float(said.get("started", 0)))


def _is_ours(pid: int, started: float) -> bool:
    """Whether the process that began this run still lives, and not a later one with its number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    began = _began(pid)
    return began is None or began <= started + 1


def _began(pid: int) -> float | None:
    """Unix time at which a process began; None where the system doesn't say."""
    try:
        ticks = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19]
        boot = next(
            line for line in Path("/proc/stat").read_text(encoding="ascii").splitlines() if line[:6] == "btime "
        )
    except (OSError, IndexError, StopIteration):
        return None
    return float(boot.split()[1]) + int(ticks) / os.sysconf("SC_CLK_TCK")


def last_stage(folder: Path) -> str | None:
    """The stage that was finished last."""
    try:
        stages = json.loads((folder / "metrics.json").read_text(encoding="utf-8")).get("stages") or {}
    except (OSError, ValueError):
        return None
    return next(reversed(stages), None)


def _submission(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "submission.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _job(said: dict[str, Any], submission: dict[str, Any]) -> str | None:
    return said.get("slurm_job") or submission.get("job")


def _log(folder: Path, job: str | None) -> Path | None:
    """Of a job sent by itself, or of one of a sweep."""
    if job is None:
        return None
    number = job.partition("_")[0]
    places = [folder / f"slurm-{job}.log", *folder.parent.glob(f".submitit/{number}*/{job}_0_log.out")]
    return next((path for path in places if path.is_file()), None)


def _states(jobs: list[str]) -> dict[str, JobState]:
    """Nothing where Slurm can't be asked, as on a machine outside of the cluster."""
    if not jobs:
        return {}
    try:
        found = states(jobs)
    except UserError:
        return {}
    return {job: found.get(job, JobState(FORGOTTEN)) for job in jobs}
