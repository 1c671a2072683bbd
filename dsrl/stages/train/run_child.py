"""The parent's side of a training: starts the child, shows its progress, and says in words why it failed."""

import json
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsrl.core import child_process
from dsrl.core.errors import StageFailed
from dsrl.stages.train.job import FAILURE, JOB, LOG, PROGRESS, RESULT, Job

if TYPE_CHECKING:
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.progress.progress import Task

POLL_SECONDS = 0.2
SHOWN = {
    "reward": "reward",
    "loss": "loss",
    "kl": "kl",
    "validation": "validation",
    "length": "completion_length",
    "tokens/s": "tokens_per_second",
}
"""Label beside the count -> name in `progress.jsonl`."""


def train(
    module: str,
    job: Job,
    threads: int | None,
    timeout_minutes: float,
    context: "Context",
    python: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run the child to its end and return what it says of its result. Raises `StageFailed`."""
    for name in (FAILURE, RESULT):
        job.path(name).unlink(missing_ok=True)
    process = child_process.start(module, [str(job.write())], job.path(LOG), threads, None, python, variables)
    try:
        with context.progress.task("training", total=job.steps) as task:
            task.series = job.path(PROGRESS)
            _follow(process, job, task, timeout_minutes)
    finally:
        child_process.stop(process)
    if process.returncode != 0 or not job.path(RESULT).is_file():
        raise failed(job, child_process.end_in_words(process.returncode))
    result: dict[str, Any] = json.loads(job.path(RESULT).read_text(encoding="utf-8"))
    return result


def _follow(process: child_process.Child, job: Job, task: "Task", timeout_minutes: float) -> None:
    """Until the child ends. Raises `StageFailed` where it shows no progress for too long."""
    offset, heard = 0, time.monotonic()
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(POLL_SECONDS)
        lines, offset = _news(job.path(PROGRESS), offset)
        for line in lines:
            _show(task, json.loads(line))
        heard = time.monotonic() if lines else heard
        if process.returncode is not None:
            return
        if time.monotonic() - heard > timeout_minutes * 60:
            raise failed(job, f"no step within {timeout_minutes:g} minutes")


def _news(path: Path, offset: int) -> tuple[list[bytes], int]:
    """Whole lines added since, and where to go on reading."""
    if not path.is_file():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        added = file.read()
    end = added.rfind(b"\n") + 1
    return added[:end].splitlines(), offset + end


def _show(task: "Task", row: dict[str, Any]) -> None:
    shown = {label: f"{row[name]:.3g}" for label, name in SHOWN.items() if row.get(name) is not None}
    task.set(row["step"], **shown)


def failed(job: Job, ending: str) -> StageFailed:
    """In words, with what the child itself said or the end of its log."""
    log = job.path(LOG)
    reason = f"{ending}; the end of the log:\n{child_process.tail(log)}"
    if job.path(FAILURE).is_file():
        reason = json.loads(job.path(FAILURE).read_text(encoding="utf-8"))["reason"]
    return StageFailed("the training failed", got=reason, next_step=f"see {log}; its settings are in {job.path(JOB)}")
