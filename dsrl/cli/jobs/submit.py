"""`dsrl submit`: one run as a job of Slurm. Doesn't wait for it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsrl.cli.compose import compose_values, refuse_secrets, split_config_dirs
from dsrl.cli.jobs.status import run_folders
from dsrl.core.errors import UserError
from dsrl.core.resources import home
from dsrl.infra.slurm.commands import check, refuse_nesting, require
from dsrl.infra.slurm.request import JobRequest
from dsrl.pipeline.config import build
from dsrl.pipeline.experiment import check_elsewhere
from dsrl.pipeline.run_folder import shown
from dsrl.pipeline.store import write_json

SUBMISSION = "submission.json"
"""In the run folder: which job it became, and what was asked for."""
SCRIPT = "job.sbatch"


def submit(arguments: list[str]) -> int:
    """`dsrl submit OVERRIDE ...`: check all that can be checked here, and send the run to Slurm."""
    refuse_secrets(arguments)
    refuse_nesting("dsrl submit")
    require()
    values = compose_values(arguments, "submit")
    request: JobRequest = build(values["slurm"], "slurm")
    check(request)
    check_elsewhere(values, arguments)
    for warning in warnings(values):
        print(f"WARNING {warning}", file=sys.stderr)
    run_dir = run_folder(arguments, values["name"])
    job = send(run_dir, request, values["name"], arguments)
    print(
        f"job {job} is with Slurm\n"
        f"run    {shown(run_dir)}\n"
        f"log    {shown(run_dir / f'slurm-{job}.log')}\n"
        f"follow dsrl status {job if run_dir in run_folders(Path.cwd()) else shown(run_dir)}\n"
        f"end    scancel {job}  (what was done is kept: the same dsrl submit goes on from there)"
    )
    return 0


def send(run_dir: Path, request: JobRequest, name: str, arguments: Sequence[str]) -> str:
    """Hand the job to sbatch; returns its number."""
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / SCRIPT).write_text(script(request.setup), encoding="utf-8")
    folders, overrides = split_config_dirs(arguments, "submit")
    overrides = [override for override in overrides if not override.startswith("hydra.run.dir=")]
    given = [*(f"--config-dir={folder}" for folder in folders), *overrides, f"hydra.run.dir={quoted(run_dir)}"]
    command = [
        "sbatch",
        "--parsable",
        f"--job-name=dsrl-{name}",
        f"--output={str(run_dir).replace('%', '%%')}/slurm-%j.log",
        f"--signal=B:USR1@{request.warn_seconds}",
        *request.arguments(),
        str(run_dir / SCRIPT),
        *given,
    ]
    environment = {**os.environ, "DSRL_PYTHON": sys.executable, "DSRL_RESTARTS": str(request.restarts)}
    job = _sent(command, environment)
    write_json(run_dir / SUBMISSION, {"job": job, "command": command, "folder": os.getcwd(), "submitted": time.time()})
    return job


def _sent(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UserError(
            "Slurm refuses the job", got=done.stderr.strip(), next_step="change slurm.* (dsrl --cfg job shows them)"
        )
    return done.stdout.strip().partition(";")[0]  # NUMBER;CLUSTER where there are several


def script(setup: Sequence[str]) -> str:
    """The sbatch script of a run, with the user's own lines in it."""
    text = (home() / "slurm" / "run.sbatch").read_text(encoding="utf-8")
    return text.replace("# {setup}\n", "".join(f"{line}\n" for line in setup))


def run_folder(arguments: Sequence[str], name: str) -> Path:
    """As a run on this machine would choose it. It stays the same when the job is put back into the queue."""
    given = [word.partition("=")[2] for word in arguments if word.startswith("hydra.run.dir=")]
    folder = Path(given[-1] if given else time.strftime(f"runs/%Y-%m-%d/%H-%M-%S-{name}")).expanduser().absolute()
    if (folder / SUBMISSION).is_file():
        job = json.loads((folder / SUBMISSION).read_text(encoding="utf-8"))["job"]
        raise UserError(
            "this run folder belongs to a job already", got=f"{folder}: job {job}", next_step="leave hydra.run.dir out"
        )
    return folder


def quoted(path: Path) -> str:
    """A path as a value on Hydra's command line."""
    text = str(path)
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return text if all(letter.isalnum() or letter in "/._-+" for letter in text) else f"'{escaped}'"


def warnings(values: dict[str, Any]) -> list[str]:
    """What works on one machine and not beyond it."""
    tracking = build(values["tracking"], "tracking")
    found = []
    if tracking.enabled and tracking.address(Path(values["store"]).expanduser().absolute()).startswith("sqlite"):
        found.append(
            "tracking: MLflow in an SQLite file serves one machine. With jobs on several nodes start a server and give "
            "tracking.uri=http://HOST:PORT (docs/slurm.md), or tracking.enabled=false"
        )
    return found
