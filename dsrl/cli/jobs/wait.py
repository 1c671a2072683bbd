"""Waiting for the jobs of a sweep: `status.json` says how each ended, and Slurm says it of those that could not."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dsrl.cli.jobs.sweep_job import pass_at_1
from dsrl.core.errors import StageFailed, UserError
from dsrl.infra.slurm.commands import JobState, states
from dsrl.pipeline.run_status import read

ENDED = ("finished", "failed", "budget")
"""Statuses that a job gives itself for good; one that was interrupted may be in the queue again."""
SETTLE_SECONDS = 10.0
"""Between Slurm's word that a job is over and ours: shared folders show files late, and a requeued job reappears."""


@dataclass(frozen=True)
class Sent:
    """A job that Slurm has taken."""

    id: str
    folder: str
    log: str
    label: str
    """What tells it from its siblings."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    job: Sent
    status: str
    reason: str | None = None

    def __str__(self) -> str:
        score = pass_at_1(Path(self.job.folder))
        found = f"pass@1 {score:.3f}" if score is not None else (self.reason or "").partition("\n")[0]
        return f"{self.job.id:<10} {self.status:<11} {self.job.label}  {found}".rstrip()


def wait(jobs: Sequence[Sent], seconds: float) -> list[float | None]:
    """Until all have ended, each told as it does; returns every trained model's pass@1. Raises `StageFailed` naming the
    jobs that failed."""
    outcomes: dict[str, Outcome] = {}
    gone: dict[str, float] = {}
    while len(outcomes) < len(jobs):
        waiting = [job for job in jobs if job.id not in outcomes]
        found = {job.id: outcome for job in waiting if (outcome := own_word(job))}
        found |= slurms_word([job for job in waiting if job.id not in found], gone)
        for outcome in found.values():
            print(outcome, file=sys.stderr, flush=True)
        outcomes |= found
        if len(outcomes) < len(jobs):
            time.sleep(seconds)
    failed = [outcomes[job.id] for job in jobs if outcomes[job.id].status != "finished"]
    if failed:
        raise failure(failed, len(jobs))
    return [pass_at_1(Path(job.folder)) for job in jobs]


def own_word(job: Sent) -> Outcome | None:
    """What the job itself says of its end, if it has said so."""
    said = read(Path(job.folder))
    if said.get("slurm_job") != job.id or said.get("status") not in ENDED:
        return None
    return Outcome(job, said["status"], said.get("reason"))


def slurms_word(jobs: Sequence[Sent], gone: dict[str, float]) -> dict[str, Outcome]:
    """Jobs that are over for Slurm, and have said nothing within a while. `gone`: since when, kept between calls."""
    known = _known(jobs)
    now = time.monotonic()
    for job in jobs:
        if job.id in known and known[job.id].over:
            gone.setdefault(job.id, now)
        else:
            gone.pop(job.id, None)
    late = [job for job in jobs if now - gone.get(job.id, now) > SETTLE_SECONDS]
    return {job.id: Outcome(job, "killed", f"Slurm: {known[job.id]}") for job in late}


def _known(jobs: Sequence[Sent]) -> Mapping[str, JobState]:
    """A controller that doesn't answer for a while is asked again later."""
    if not jobs:
        return {}
    try:
        return states([job.id for job in jobs])
    except UserError as error:
        print(f"WARNING {error}", file=sys.stderr, flush=True)
        return {}


def failure(failed: Sequence[Outcome], total: int) -> StageFailed:
    """In words, with every log."""
    lines = [f"{outcome}\n             log {outcome.job.log}" for outcome in failed]
    return StageFailed(
        f"{len(failed)} of {total} jobs failed",
        got="\n           ".join(lines),
        next_step="the same command again: what was finished is in the store, and the rest goes on where it was",
    )
