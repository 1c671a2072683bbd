"""The parent's side of a training: run the child, follow `progress.jsonl`, report why a training failed."""

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsrl.core import child_process
from dsrl.core.errors import StageFailed
from dsrl.core.files import tail_lines
from dsrl.stages.train.failure_causes import resource_hint
from dsrl.stages.train.job import FAILURE, JOB, LOG, PROGRESS, RESULT, TrainingJob

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
"""Label on the progress line -> name in `progress.jsonl`."""
MAX_POINTS = 200
"""Points of the series in `metrics.json`."""


def run_training(
    module: str,
    job: TrainingJob,
    threads: int | None,
    timeout_minutes: float,
    context: "Context",
    python: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run the child to its end and return its `result.json`. Raises `StageFailed`."""
    for name in (FAILURE, RESULT):
        job.path(name).unlink(missing_ok=True)
    process = child_process.start(
        module,
        [str(job.write())],
        job.path(LOG),
        threads,
        answers=None,
        python=python,
        variables=variables,
        secrets=child_process.HUB_SECRETS,
    )
    try:
        with context.progress.task("training", total=job.steps) as task:
            task.series = job.path(PROGRESS)
            _follow(process, job, task, timeout_minutes)
    finally:
        child_process.stop(process)
    if process.returncode != 0 or not job.path(RESULT).is_file():
        raise _failed(job, child_process.end_in_words(process.returncode))
    result: dict[str, Any] = json.loads(job.path(RESULT).read_text(encoding="utf-8"))
    return result


def _follow(process: child_process.Child, job: TrainingJob, task: "Task", timeout_minutes: float) -> None:
    """Show the progress until the child ends. Raises `StageFailed` after `timeout_minutes` without a step."""
    offset, last_step = 0, time.monotonic()
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(POLL_SECONDS)
        lines, offset = tail_lines(job.path(PROGRESS), offset)
        for row in map(json.loads, lines):
            shown = {label: f"{row[name]:.3g}" for label, name in SHOWN.items() if row.get(name) is not None}
            task.set(row["step"], **shown)
            last_step = time.monotonic()
        if process.returncode is not None:
            return
        if time.monotonic() - last_step > timeout_minutes * 60:
            raise _failed(job, f"no step within {timeout_minutes:g} minutes")


def _failed(job: TrainingJob, ending: str) -> StageFailed:
    log = job.path(LOG)
    excerpt = child_process.tail(log)
    reason = job.failure() or resource_hint(excerpt) or f"{ending}; the end of the log:\n{excerpt}"
    return StageFailed("the training failed", got=reason, next_step=f"see {log}; its settings are in {job.path(JOB)}")


def read_progress(path: Path) -> list[dict[str, Any]]:
    """The rows of `progress.jsonl` by step; a validation is merged into the row of its step."""
    steps: dict[int, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        row = json.loads(line)
        steps[row["step"]] = {**steps.get(row["step"], {}), **row}
    return [steps[step] for step in sorted(steps)]


def truncate_progress(path: Path, step: int) -> None:
    """Remove the rows after `step`, and the incomplete line of a killed process."""
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    kept = [line for line in lines if line.endswith(b"\n") and json.loads(line)["step"] <= step]
    path.write_bytes(b"".join(kept))


def progress_metrics(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Metrics of the stage: the mean reward of the first and of the last tenth of the steps, and the series."""
    trained = [row for row in rows if row["step"] > 0]
    rewards = [row["reward"] for row in trained if row.get("reward") is not None]
    tenth = max(1, len(rewards) // 10)
    validated = [row for row in rows if row.get("validation") is not None]
    return {
        "reward_first": sum(rewards[:tenth]) / tenth if rewards else None,
        "reward_last": sum(rewards[-tenth:]) / tenth if rewards else None,
        "validation": [{"step": row["step"], "right": row["validation"]} for row in validated],
        "series": thin_out(trained, MAX_POINTS),
    }


def no_signal_warnings(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A warning if no group of the whole training had any reward variance."""
    shares = [row["zero_variance"] for row in rows if row.get("zero_variance") is not None]
    if shares and min(shares) == 1:
        return ["all replies to a question always earned the same reward: nothing could be learned from them"]
    return []


def thin_out(rows: Sequence[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """At most `limit` rows, evenly spaced, including the first and the last."""
    if len(rows) <= limit:
        return list(rows)
    return [rows[number * (len(rows) - 1) // (limit - 1)] for number in range(limit)]
