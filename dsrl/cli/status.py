"""`dsrl status`: the state of runs, jobs and sweeps, seen from outside. Marks runs that were killed as such."""

import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dsrl.core.errors import UserError
from dsrl.infra.slurm.commands import FORGOTTEN, JobState, states
from dsrl.infra.tracking import Tracking
from dsrl.pipeline import run_status
from dsrl.pipeline.run_folder import shown

MAX_LISTED = 12
"""Runs that are listed without an argument."""
LOG_LINES = 8
CLOSE_FIELDS = ("enabled", "uri", "experiment")
"""Fields of a run's tracking config that are used to mark it as killed in MLflow. Nothing else is built from files."""


@dataclass(frozen=True)
class RunState:
    """A run as seen from outside."""

    folder: Path
    status: str
    """As in `status.json`; `queued` before the start; `killed` if it says `running` but its process is gone."""
    died: bool
    """Whether it ended without writing its status, so that other records still say `running`."""
    job: str | None = None
    slurm: JobState | None = None
    last_stage: str | None = None
    """The stage finished last."""
    reason: str | None = None
    log: Path | None = None

    def __str__(self) -> str:
        job = f"job {self.job}: {self.slurm or 'not known to Slurm'}" if self.job else ""
        stage = f"after {self.last_stage}" if self.last_stage and self.status != "finished" else ""
        return f"{self.status:<12} {shown(self.folder.absolute())}  {'  '.join(filter(None, (stage, job)))}".rstrip()


def status(arguments: list[str]) -> int:
    """`dsrl status [JOB | FOLDER]`: the latest runs; or one run or job with the end of its log; or a sweep's jobs."""
    if len(arguments) > 1 or any(word.startswith("-") or "=" in word for word in arguments):
        raise UserError("status: unknown arguments", got=" ".join(arguments), allowed="dsrl status [JOB | FOLDER]")
    runs = inspect(find(arguments[0]) if arguments else latest())
    if not runs:
        print("no runs here: dsrl status looks into runs/ and multirun/ of the working folder")
    for run in runs:
        print(run)
    if arguments and len(runs) == 1:
        print("".join(f"{line}\n" for line in details(runs[0])), end="")
    for line in mark_killed([run for run in runs if run.died]):
        print(line)
    return 0


def latest() -> list[Path]:
    """The latest run folders below the working folder."""
    return sorted(run_folders(Path()), key=lambda folder: folder.stat().st_mtime)[-MAX_LISTED:]


def run_folders(root: Path) -> set[Path]:
    """Every run folder in Hydra's places: `runs/DATE/RUN` and `multirun/DATE/SWEEP/JOB`."""
    places = ("runs/*/*", "multirun/*/*/*")
    names = (run_status.STATUS, "submission.json")
    return {path.parent for place in places for name in names for path in root.glob(f"{place}/{name}")}


def find(what: str) -> list[Path]:
    """The run folder, the run folders of a sweep, or those of a Slurm job or array by its number."""
    folder = Path(what).expanduser()
    if folder.is_dir():
        return sweep_folders(folder) or [folder]
    found = []
    for path in sorted(run_folders(Path())):
        job = inspect([path], ask_slurm=False)[0].job
        if job is not None and what in (job, job.partition("_")[0], str(path)):
            found.append(path)
    if not found:
        raise UserError(
            "no such run or job",
            got=what,
            allowed="a run folder, a sweep's folder, or the number of a Slurm job",
            next_step="dsrl status, in the folder where you submitted it, lists them",
        )
    return found


def sweep_folders(folder: Path) -> list[Path]:
    """The run folders of a sweep in the order of its jobs; empty if the folder is not a sweep's."""
    sweep = folder / "sweep.json"
    if sweep.is_file():
        return [Path(job["folder"]) for job in json.loads(sweep.read_text(encoding="utf-8"))]
    runs = (path.parent for path in folder.glob(f"*/{run_status.STATUS}"))
    return sorted(runs, key=lambda run: (len(run.name), run.name))


def inspect(folders: Sequence[Path], *, ask_slurm: bool = True) -> list[RunState]:
    """The state of each run. Slurm is asked once for all of them, if any is a job."""
    records = [(folder, run_status.read(folder), _read_json(folder / "submission.json")) for folder in folders]
    jobs = {folder: record.get("slurm_job") or sent.get("job") for folder, record, sent in records}
    known = _slurm_states([job for job in jobs.values() if job]) if ask_slurm else {}
    return [_inspect(folder, record, jobs[folder], known) for folder, record, _ in records]


def _inspect(folder: Path, record: dict[str, Any], job: str | None, known: dict[str, JobState]) -> RunState:
    slurm = known.get(job) if job else None
    found = record.get("status", "queued")
    died = found == "running" and not is_alive(record, slurm)
    if died or (found == "queued" and slurm is not None and slurm.over):
        found = "killed"
    elif found == "interrupted" and slurm is not None and not slurm.over:
        found = "queued"
    stages = _read_json(folder / "metrics.json").get("stages") or {}
    return RunState(
        folder=folder,
        status=found,
        died=died,
        job=job,
        slurm=slurm,
        last_stage=next(reversed(stages), None),
        reason=record.get("reason"),
        log=_find_log(folder, job),
    )


def is_alive(record: dict[str, Any], slurm: JobState | None) -> bool:
    """Whether the process of a run that says `running` is there. In doubt it is, such as on another machine."""
    if record.get("slurm_job"):
        return slurm is None or not slurm.over
    if record.get("host") != socket.gethostname():
        return True
    pid, started = int(record.get("pid", 0)), float(record.get("started", 0))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    process_start = _process_start(pid)  # a later process may have got the same number
    return process_start is None or process_start <= started + 1


def _process_start(pid: int) -> float | None:
    """Unix time at which a process started; None if the system doesn't tell."""
    try:
        ticks = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19]
        lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
        boot = next(line.split()[1] for line in lines if line.startswith("btime "))
    except (OSError, IndexError, StopIteration):
        return None
    return float(boot) + int(ticks) / os.sysconf("SC_CLK_TCK")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _find_log(folder: Path, job: str | None) -> Path | None:
    """The log of a job of its own, or of a job of a sweep."""
    if job is None:
        return None
    places = [folder / f"slurm-{job}.log", *folder.parent.glob(f".submitit/{job.partition('_')[0]}*/{job}_0_log.out")]
    return next((path for path in places if path.is_file()), None)


def _slurm_states(jobs: list[str]) -> dict[str, JobState]:
    """What Slurm knows of the jobs; empty if it can't be asked, such as on a machine outside of the cluster."""
    try:
        found = states(jobs) if jobs else {}
    except UserError:
        return {}
    return {job: found.get(job, JobState(FORGOTTEN)) for job in jobs}


def details(run: RunState) -> Iterator[str]:
    """The last finished stage, the reason of a failure, and the end of the log."""
    if run.last_stage:
        yield f"stage  {run.last_stage} was the last to finish"
    if run.reason:
        yield f"reason {run.reason}"
    if run.log and run.log.is_file():
        yield f"log    {shown(run.log)}"
        lines = run.log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
        yield from (f"  | {line[:200]}" for line in lines)


def mark_killed(died: Sequence[RunState]) -> Iterator[str]:
    """Mark killed runs as such in MLflow and in `status.json`, and report it. What fails is tried again next time."""
    groups: dict[tuple[str, str] | None, list[Path]] = {}
    for run in died:
        groups.setdefault(_tracked_in(run.folder), []).append(run.folder)
    for group, folders in groups.items():
        answer = _close_in_mlflow(group, folders) if group else {"closed": 0}
        if "error" in answer:
            yield f"WARNING {len(folders)} killed runs can't be closed in MLflow: {answer['error']}"
            continue
        if answer["closed"]:
            yield f"closed in MLflow: {answer['closed']} of {len(folders)} killed runs"
        for folder in folders:
            run_status.amend(folder, status="killed", finished=time.time(), reason="the process ended without a status")


def _tracked_in(folder: Path) -> tuple[str, str] | None:
    """The store and the tracking settings (as JSON) of a run. None if it died before it was tracked, or if the folder
    belongs to another user: nothing is done on the word of somebody else's files."""
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        started_in = json.loads((folder / "run.json").read_text(encoding="utf-8"))["folder"]
        if folder.stat().st_uid != os.getuid():
            return None
        store = Path(started_in) / Path(config["store"]).expanduser()
        fields = {name: config["tracking"][name] for name in CLOSE_FIELDS if name in config["tracking"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(store), json.dumps({**fields, "patience": config["tracking"].get("patience", 60.0)}, sort_keys=True)


def _close_in_mlflow(group: tuple[str, str], folders: Sequence[Path]) -> dict[str, Any]:
    store, fields = group
    try:
        tracking = Tracking(**json.loads(fields))
        return tracking.close(Path(store), [str(folder.absolute()) for folder in folders])
    except ValueError as error:
        return {"error": str(error)}
