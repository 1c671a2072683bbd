"""`status.json` of a run folder: whether the run is running, and how it ended.

A killed run leaves `running` in it, with its host and process, so that `dsrl status` can detect it.
"""

import json
import os
import socket
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dsrl.core.errors import BudgetReached, UserError
from dsrl.pipeline.store import write_json

STATUS = "status.json"


@contextmanager
def record_status(run_dir: Path) -> Iterator[None]:
    """Write `status.json`: `running` at the start, then `finished`, `failed`, `interrupted` or `budget`."""
    start = {**location(), "started": time.time(), "attempt": read(run_dir).get("attempt", 0) + 1}
    _write(run_dir, {"status": "running", **start})
    try:
        yield
    except BaseException as error:
        _write(run_dir, {**describe_error(error), **start, "finished": time.time()})
        raise
    _write(run_dir, {"status": "finished", "exit_code": 0, **start, "finished": time.time()})


def describe_error(error: BaseException) -> dict[str, Any]:
    """Status, exit code, reason and traceback of a run that ended with this error."""
    from dsrl.core.signals import interrupted_code

    if isinstance(error, KeyboardInterrupt):
        return {"status": "interrupted", "exit_code": interrupted_code(), "reason": "Ctrl-C or SIGTERM"}
    status = "budget" if isinstance(error, BudgetReached) else "failed"
    code = error.exit_code if isinstance(error, UserError) else 1
    words = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return {
        "status": status,
        "exit_code": code,
        "reason": words,
        "traceback": "".join(traceback.format_exception(error)),
    }


def location() -> dict[str, Any]:
    """Host and process id and, inside a Slurm job, its number."""
    found: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid()}
    if job := slurm_job(os.environ):
        found |= {"slurm_job": job, "restarts": int(os.environ.get("SLURM_RESTART_COUNT", 0))}
    return found


def slurm_job(environment: Mapping[str, str]) -> str | None:
    """The number of the Slurm job of this process: `12`, or `12_3` in an array."""
    if array := environment.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{environment.get('SLURM_ARRAY_TASK_ID')}"
    return environment.get("SLURM_JOB_ID")


def read(run_dir: Path) -> dict[str, Any]:
    """The content of `status.json`; empty if there is none."""
    try:
        found = json.loads((run_dir / STATUS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def amend(run_dir: Path, **changes: Any) -> None:
    """Change the status of a run that is no longer running."""
    _write(run_dir, {**read(run_dir), **changes})


def _write(run_dir: Path, value: Mapping[str, Any]) -> None:
    """Write the status. A run must not fail because its status can't be written."""
    with suppress(OSError):
        write_json(run_dir / STATUS, value)
