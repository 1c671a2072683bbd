"""`dsrl submit`: send one run to Slurm as a job, without waiting for it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dsrl.cli.compose import compose_values, override_value, quote, refuse_secrets, split_config_dirs
from dsrl.cli.status import run_folders
from dsrl.core.errors import UserError
from dsrl.core.resources import home
from dsrl.infra.slurm import commands
from dsrl.infra.slurm.request import JobRequest
from dsrl.pipeline.config import build
from dsrl.pipeline.experiment import check_elsewhere
from dsrl.pipeline.run_folder import shown
from dsrl.pipeline.store import write_json

SUBMISSION = "submission.json"
"""In the run folder: the job's number and command."""
SCRIPT = "job.sbatch"


def submit(arguments: list[str]) -> int:
    """`dsrl submit OVERRIDE ...`: check everything that can be checked here, then send the run to Slurm."""
    refuse_secrets(arguments)
    commands.refuse_nesting("dsrl submit")
    commands.require()
    values = compose_values(arguments, "submit")
    request: JobRequest = build(values["slurm"], "slurm")
    commands.check(request)
    check_elsewhere(values, arguments)
    if warning := tracking_warning(values):
        print(f"WARNING {warning}", file=sys.stderr)
    run_dir = run_folder(arguments, values)
    job = send(run_dir, request, values["name"], arguments)
    print(
        f"submitted job {job}\n"
        f"run       {shown(run_dir)}\n"
        f"log       {shown(run_dir / f'slurm-{job}.log')}\n"
        f"follow    dsrl status {job if run_dir in run_folders(Path.cwd()) else shown(run_dir)}\n"
        f"cancel    scancel {job}  (finished work is kept: the same dsrl submit continues from there)"
    )
    return 0


def send(run_dir: Path, request: JobRequest, name: str, arguments: Sequence[str]) -> str:
    """Pass the run to sbatch. Returns the job's number."""
    run_dir.mkdir(parents=True, exist_ok=True)
    template = (home() / "slurm" / "run.sbatch").read_text(encoding="utf-8")
    (run_dir / SCRIPT).write_text(job_script(template, request.setup), encoding="utf-8")
    folders, overrides = split_config_dirs(arguments, "submit")
    overrides = [override for override in overrides if not override.startswith("hydra.run.dir=")]
    command = [
        "sbatch",
        "--parsable",
        f"--job-name=dsrl-{name}",
        f"--output={str(run_dir).replace('%', '%%')}/slurm-%j.log",
        f"--signal=B:USR1@{request.warn_seconds}",
        *request.arguments(),
        str(run_dir / SCRIPT),
        *(f"--config-dir={folder}" for folder in folders),
        *overrides,
        f"hydra.run.dir={quote(run_dir)}",
    ]
    environment = {**os.environ, "DSRL_PYTHON": sys.executable, "DSRL_RESTARTS": str(request.restarts)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UserError(
            "Slurm refuses the job", got=done.stderr.strip(), next_step="change slurm.* (dsrl --cfg job shows them)"
        )
    job = done.stdout.strip().partition(";")[0]  # NUMBER;CLUSTER if there are several clusters
    write_json(run_dir / SUBMISSION, {"job": job, "command": command, "folder": os.getcwd(), "submitted": time.time()})
    return job


def job_script(template: str, setup: Sequence[str]) -> str:
    """The sbatch script of a run, with the user's setup lines."""
    return template.replace("# {setup}\n", "".join(f"{line}\n" for line in setup))


def run_folder(arguments: Sequence[str], values: Mapping[str, Any]) -> Path:
    """The run folder as a local run would choose it. It stays the same when Slurm requeues the job."""
    given = override_value(arguments, "hydra.run.dir", values)
    default = time.strftime(f"runs/%Y-%m-%d/%H-%M-%S-{values['name']}")
    folder = Path(default if given is None else str(given)).expanduser().absolute()
    if (folder / SUBMISSION).is_file():
        job = json.loads((folder / SUBMISSION).read_text(encoding="utf-8"))["job"]
        raise UserError("this run folder belongs to a job", got=f"{folder}: job {job}", next_step="omit hydra.run.dir")
    return folder


def tracking_warning(values: Mapping[str, Any]) -> str | None:
    """A warning if the MLflow store works on one machine only."""
    tracking = build(values["tracking"], "tracking")
    uri = tracking.address(Path(values["store"]).expanduser().absolute())
    if not tracking.enabled or not uri.startswith("sqlite"):
        return None
    return (
        "tracking: MLflow in an SQLite file serves one machine. For jobs on several nodes start a server and give "
        "tracking.uri=http://HOST:PORT (docs/slurm.md), or tracking.enabled=false"
    )
