"""The launcher of sweeps on Slurm: every job of the sweep becomes a job of one array, submitted by submitit.

submitit's own launcher for Hydra hides failures (a failed job is COMPLETED with exit code 0, and its log is empty) and
loses all results after the first failure. Here a job is a `dsrl run` with a folder, a log and a `status.json`.
"""

import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from dsrl.cli.compose import quote
from dsrl.cli.submit import tracking_warning
from dsrl.core.component import Component, component
from dsrl.core.errors import StageFailed, UserError
from dsrl.core.signals import Termination
from dsrl.infra.slurm import commands
from dsrl.infra.slurm.request import JobRequest
from dsrl.pipeline import run_status
from dsrl.pipeline.config import build, make
from dsrl.pipeline.experiment import check_elsewhere
from dsrl.pipeline.run_folder import shown
from dsrl.pipeline.store import write_json

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.utils import JobReturn
    from omegaconf import DictConfig
    from submitit.helpers import DelayedSubmission

    from dsrl.cli.app import RunPipeline

SWEEP = "sweep.json"
"""In the sweep's folder: its jobs with their numbers and overrides."""
TIME_LIMIT_SIGNAL = signal.SIGUSR2
"""The signal that submitit lets Slurm send before the time limit."""
FINAL = ("finished", "failed", "budget")
"""Statuses that a job writes itself and that are final; an interrupted job may be in the queue again."""
SETTLE_SECONDS = 10.0
"""Wait after Slurm reports the end of a job: shared folders show files late, and a requeued job reappears."""


@component(None)
class LauncherSettings(Component):
    """The settings in `conf/hydra/launcher/slurm.yaml`."""

    request: JobRequest
    parallel: int = Field(ge=1)
    wait: bool
    poll_seconds: float = Field(gt=0)


@dataclass(frozen=True)
class SweepJob:
    """A `dsrl run` with these arguments and run folder, as submitit runs it on its node."""

    arguments: list[str]
    folder: str
    run_pipeline: "RunPipeline"

    def __call__(self) -> float | None:
        """The trained model's pass@1, if there is one. Raises `JobFailed`."""
        from dsrl.cli.app import dispatch

        time_limit = TimeLimit()
        signal.signal(TIME_LIMIT_SIGNAL, time_limit)
        termination = Termination()
        signal.signal(signal.SIGTERM, termination)
        code = dispatch(self.arguments, self.run_pipeline)
        if time_limit.received and code != 0:
            time_limit.requeue()
        if termination.received and code != 0:  # scancel, or a preemption after which Slurm starts the job again
            raise SystemExit(code)
        if code != 0:
            reason = run_status.read(Path(self.folder)).get("reason", "see above")
            raise JobFailed(f"dsrl ended with exit code {code}: {reason}")
        return pass_at_1(Path(self.folder))

    def checkpoint(self) -> "DelayedSubmission":
        """What submitit runs after a requeue: the same command, which continues from what is in the store."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class JobFailed(Exception):
    """Makes submitit exit with a code that Slurm counts as a failure."""


class TimeLimit(Termination):
    """Handler of the signal before the time limit: it ends the run like Ctrl-C; then submitit requeues the job."""

    def __init__(self) -> None:
        self._requeue = signal.getsignal(TIME_LIMIT_SIGNAL)

    def requeue(self) -> None:
        """Let submitit requeue the job and end the process. Returns only if the job was requeued too often."""
        assert callable(self._requeue)
        self._requeue(TIME_LIMIT_SIGNAL, None)


@dataclass(frozen=True)
class SubmittedJob:
    """A job that Slurm has accepted."""

    id: str
    folder: str
    log: str
    label: str
    """The overrides that distinguish it from the other jobs."""


@dataclass(frozen=True)
class JobOutcome:
    """How a job ended."""

    job: SubmittedJob
    status: str
    reason: str | None = None

    def __str__(self) -> str:
        score = pass_at_1(Path(self.job.folder))
        result = f"pass@1 {score:.3f}" if score is not None else (self.reason or "").partition("\n")[0]
        return f"{self.job.id:<10} {self.status:<11} {self.job.label}  {result}".rstrip()


def launch(
    config: "DictConfig",
    loader: "ConfigLoader",
    settings: Mapping[str, Any],
    job_overrides: Sequence[Sequence[str]],
    first: int,
    run_pipeline: "RunPipeline",
) -> "list[JobReturn]":
    """Check all jobs, submit them, and wait for them. `first` is the number of the first job. Raises `UserError` if
    a job can't be submitted, `StageFailed` if one fails."""
    from importlib.util import find_spec

    from hydra.core.utils import JobReturn, JobStatus

    commands.refuse_nesting("hydra/launcher=slurm")
    commands.require()
    if find_spec("submitit") is None:
        raise UserError("hydra/launcher=slurm needs submitit", next_step="pip install 'dsrl[slurm]'")
    launcher = launcher_settings(settings)
    commands.check(launcher.request)
    refuse_swept_requests(job_overrides)
    folder = Path(str(config.hydra.sweep.dir)).absolute()
    values = [_check_job(config, loader, overrides) for overrides in job_overrides]
    prepare_tracking(values[0], folder)
    own = [sweep_job(config, folder, list(words), first + at, run_pipeline) for at, words in enumerate(job_overrides)]
    jobs = submit_array(launcher, folder, own)
    print_submission(jobs, folder)
    results = wait(jobs, launcher.poll_seconds) if launcher.wait else [None] * len(jobs)
    return [JobReturn(_return_value=result, status=JobStatus.COMPLETED) for result in results]


def launcher_settings(given: Mapping[str, Any]) -> LauncherSettings:
    from omegaconf import OmegaConf

    values = {
        name: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        for name, value in given.items()
    }
    request = build(values.pop("request", None), "slurm")
    settings: LauncherSettings = make(LauncherSettings, {**values, "request": request}, "hydra.launcher")
    return settings


def refuse_swept_requests(job_overrides: Sequence[Sequence[str]]) -> None:
    """All jobs of an array request the same resources, so a sweep over `slurm.*` would have no effect."""
    requests = [tuple(word for word in words if word.startswith("slurm.")) for words in job_overrides]
    if differing := [words for words in requests if words != requests[0]]:
        raise UserError(
            "the jobs of a sweep request the same resources from Slurm",
            got=f"{' '.join(requests[0])} and {' '.join(differing[0])}",
            next_step="one sweep for each",
        )


def _check_job(config: "DictConfig", loader: "ConfigLoader", overrides: Sequence[str]) -> dict[str, Any]:
    """One job's config values. A mistake in any job stops the sweep before anything is submitted."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict

    from dsrl.pipeline.config import resolve

    own = loader.load_sweep_config(config, list(overrides))
    HydraConfig.instance().set_config(own)
    with open_dict(own):
        del own["hydra"]
    values = resolve(own)
    check_elsewhere(values, overrides)
    return values


def prepare_tracking(values: Mapping[str, Any], folder: Path) -> None:
    """Create MLflow's database, the experiment and the sweep's run once, before many jobs would at the same time."""
    if warning := tracking_warning(values):
        _print(f"WARNING {warning}")
    tracking = build(values["tracking"], "tracking")
    if reason := tracking.prepare(Path(values["store"]).expanduser().absolute(), str(folder)):
        _print(f"WARNING tracking: {reason}. The jobs will try again themselves.")


def sweep_job(
    config: "DictConfig", folder: Path, overrides: list[str], number: int, run_pipeline: "RunPipeline"
) -> SweepJob:
    """One run of the sweep as a command line of its own: it composes its config on its node."""
    search = [word for word in config.hydra.overrides.hydra if word.lstrip("+").startswith("hydra.searchpath")]
    sources = config.hydra.runtime.config_sources
    config_dirs = [f"--config-dir={source.path}" for source in sources if source.provider == "command-line"]
    own = ["hydra.mode=RUN", f"hydra.run.dir={quote(folder / str(number))}"]  # an experiment may say MULTIRUN
    if not any(word.startswith("tracking.sweep=") for word in overrides):
        own.append(f"tracking.sweep={quote(folder)}")
    return SweepJob([*config_dirs, *search, *overrides, *own], str(folder / str(number)), run_pipeline)


def submit_array(settings: LauncherSettings, folder: Path, jobs: Sequence[SweepJob]) -> list[SubmittedJob]:
    """Submit the jobs to Slurm as one array."""
    import submitit
    from submitit.core.utils import FailedJobError

    folder.mkdir(parents=True, exist_ok=True)
    request = settings.request
    executor = submitit.AutoExecutor(
        str(folder / ".submitit" / "%j"), cluster="slurm", slurm_max_num_timeout=request.restarts
    )
    executor.update_parameters(
        name=f"dsrl-{folder.name}",
        timeout_min=request.minutes,
        stderr_to_stdout=True,
        slurm_array_parallelism=settings.parallel,
        slurm_signal_delay_s=request.warn_seconds,
        slurm_setup=list(request.setup),
        # one process, on the first node; it starts what belongs on the others itself
        slurm_srun_args=["--nodes=1", "--ntasks=1", "--overlap"],
        slurm_additional_parameters={name.replace("-", "_"): value for name, value in request.sbatch().items()},
    )
    try:
        sent = executor.submit_array(jobs)
    except FailedJobError as error:
        raise UserError("Slurm refuses the jobs", got=str(error), next_step="change slurm.*") from error
    labels = distinguishing_overrides([job.arguments for job in jobs])
    submitted = [
        SubmittedJob(one.job_id, job.folder, str(one.paths.stdout), label)
        for one, job, label in zip(sent, jobs, labels, strict=True)
    ]
    write_json(folder / SWEEP, [asdict(one) for one in submitted])
    return submitted


def distinguishing_overrides(arguments: Sequence[Sequence[str]]) -> list[str]:
    """For each job, the overrides that not all jobs have."""
    common = set(arguments[0]).intersection(*arguments[1:]) if len(arguments) > 1 else set()
    hidden = ("hydra.", "tracking.sweep=", "--config-dir")
    return [
        " ".join(word for word in words if not word.startswith(hidden) and word not in common) for words in arguments
    ]


def print_submission(jobs: Sequence[SubmittedJob], folder: Path) -> None:
    """Print where everything is, at once: the sweep outlives this process."""
    first, last = jobs[0].id, jobs[-1].id
    _print(f"submitted {len(jobs)} jobs: {first} to {last}" if len(jobs) > 1 else f"submitted job {first}")
    _print(f"sweep     {shown(folder)}\nlogs      {shown(folder)}/.submitit")
    _print(f"follow    dsrl status {shown(folder)}")
    _print(f"cancel    scancel {first.partition('_')[0]}; the jobs go on if this process ends")


def wait(jobs: Sequence[SubmittedJob], poll_seconds: float) -> list[float | None]:
    """Wait for all jobs and print the outcome of each as it ends. Returns the pass@1 of every trained model.
    Raises `StageFailed` naming the jobs that failed."""
    outcomes: dict[str, JobOutcome] = {}
    over_since: dict[str, float] = {}
    while len(outcomes) < len(jobs):
        waiting = [job for job in jobs if job.id not in outcomes]
        ended = {job.id: outcome for job in waiting if (outcome := reported_outcome(job))}
        ended |= killed_outcomes([job for job in waiting if job.id not in ended], over_since)
        for outcome in ended.values():
            _print(str(outcome))
        outcomes |= ended
        if len(outcomes) < len(jobs):
            time.sleep(poll_seconds)
    failed = [outcomes[job.id] for job in jobs if outcomes[job.id].status != "finished"]
    if failed:
        lines = [f"{outcome}\n             log {outcome.job.log}" for outcome in failed]
        raise StageFailed(
            f"{len(failed)} of {len(jobs)} jobs failed",
            got="\n           ".join(lines),
            next_step="run the same command again: finished work is in the store, and the rest continues from there",
        )
    return [pass_at_1(Path(job.folder)) for job in jobs]


def reported_outcome(job: SubmittedJob) -> JobOutcome | None:
    """The outcome that the job wrote into its `status.json`; None if it has not written a final one."""
    record = run_status.read(Path(job.folder))
    if record.get("slurm_job") != job.id or record.get("status") not in FINAL:
        return None
    return JobOutcome(job, record["status"], record.get("reason"))


def killed_outcomes(jobs: Sequence[SubmittedJob], over_since: dict[str, float]) -> dict[str, JobOutcome]:
    """Outcomes of jobs that Slurm reports as ended but that wrote no final status within `SETTLE_SECONDS`.
    `over_since` keeps, between calls, when Slurm first reported the end of each."""
    try:
        known = commands.states([job.id for job in jobs]) if jobs else {}
    except UserError as error:  # the controller may answer again later
        _print(f"WARNING {error}")
        known = {}
    now = time.monotonic()
    for job in jobs:
        if job.id in known and known[job.id].over:
            over_since.setdefault(job.id, now)
        else:
            over_since.pop(job.id, None)
    late = [job for job in jobs if now - over_since.get(job.id, now) > SETTLE_SECONDS]
    return {job.id: JobOutcome(job, "killed", f"Slurm: {known[job.id]}") for job in late}


def pass_at_1(folder: Path) -> float | None:
    """The trained model's pass@1 from a run's `metrics.json`, if it has one."""
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found: float | None = (metrics.get("evaluate", {}).get("trained") or {}).get("pass_at_1")
    return found


def _print(text: str) -> None:
    """Print to standard error, as runs do."""
    print(text, file=sys.stderr, flush=True)
