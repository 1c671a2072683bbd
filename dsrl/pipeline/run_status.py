"""`status.json` of a run folder: how a run stands and how it ended, for whoever looks at it from outside.

A run that dies without a word leaves `running` in it, with the place where it ran, so that `dsrl status` finds out.
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
    """Keep `status.json` while a run goes on: `running`, then `finished`, `failed`, `interrupted` or `budget`."""
    begun = {**place(), "started": time.time(), "attempt": read(run_dir).get("attempt", 0) + 1}
    _write(run_dir, {"status": "running", **begun})
    try:
        yield
    except BaseException as error:
        _write(run_dir, {**ending(error), **begun, "finished": time.time()})
        raise
    _write(run_dir, {"status": "finished", "exit_code": 0, **begun, "finished": time.time()})


def ending(error: BaseException) -> dict[str, Any]:
    """Status, exit code, reason and traceback of a run that ended so."""
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


def place() -> dict[str, Any]:
    """Where this process runs: machine, process and, inside a Slurm job, that job's number."""
    found: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid()}
    if job := slurm_job(os.environ):
        found |= {"slurm_job": job, "restarts": int(os.environ.get("SLURM_RESTART_COUNT", 0))}
    return found


def slurm_job(environment: Mapping[str, str]) -> str | None:
    """The number of the Slurm job that we are in, `12` or `12_3` of an array."""
    if array := environment.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{environment.get('SLURM_ARRAY_TASK_ID')}"
    return environment.get("SLURM_JOB_ID")


def read(run_dir: Path) -> dict[str, Any]:
    """What `status.json` says; empty where there is none."""
    try:
        found = json.loads((run_dir / STATUS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def amend(run_dir: Path, **news: Any) -> None:
    """Change what it says, of a run that can't do so any more."""
    _write(run_dir, {**read(run_dir), **news})


def _write(run_dir: Path, value: Mapping[str, Any]) -> None:
    """A run isn't to fail because nobody can be told how it stands."""
    with suppress(OSError):
        write_json(run_dir / STATUS, value)
