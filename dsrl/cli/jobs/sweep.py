"""The launcher of sweeps: every job of a sweep becomes one of an array of Slurm jobs, sent by submitit.

submitit's own launcher for Hydra hides failures (a job that broke is COMPLETED with exit code 0, and its log is empty)
and loses all results after the first failure. Here a job is a `dsrl run` with a folder, a log and a `status.json`.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from dsrl.cli.jobs.submit import quoted, warnings
from dsrl.cli.jobs.sweep_job import SweepJob
from dsrl.cli.jobs.wait import Sent, wait
from dsrl.core.component import Component, component
from dsrl.core.errors import UserError
from dsrl.infra.slurm.commands import check, refuse_nesting, require
from dsrl.infra.slurm.request import JobRequest
from dsrl.pipeline.config import build, make
from dsrl.pipeline.run_folder import shown
from dsrl.pipeline.store import write_json

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.utils import JobReturn
    from omegaconf import DictConfig

    from dsrl.cli.app import RunPipeline

SWEEP = "sweep.json"
"""In the sweep's folder: its jobs, with their numbers and overrides."""


@component(None)
class LauncherSettings(Component):
    """The dials in `conf/hydra/launcher/slurm.yaml`."""

    request: JobRequest
    parallel: int = Field(ge=1)
    wait: bool
    poll_seconds: float = Field(gt=0)


def launch(
    config: "DictConfig",
    loader: "ConfigLoader",
    given: Mapping[str, Any],
    job_overrides: Sequence[Sequence[str]],
    first: int,
    run_pipeline: "RunPipeline",
) -> "list[JobReturn]":
    """Check all jobs, submit them, and wait for them. Raises `UserError` where any of them failed."""
    refuse_nesting("hydra/launcher=slurm")
    require()
    require_submitit()
    dials = made(given)
    check(dials.request)
    refuse_swept_requests(job_overrides)
    folder = Path(str(config.hydra.sweep.dir)).absolute()
    values = [_checked(config, loader, overrides) for overrides in job_overrides]
    open_books(values[0], folder)
    own = [job(config, folder, list(words), first + at, run_pipeline) for at, words in enumerate(job_overrides)]
    jobs = send(dials, folder, own)
    tell(jobs, folder)
    results = wait(jobs, dials.poll_seconds) if dials.wait else [None] * len(jobs)
    return [returned(result) for result in results]


def require_submitit() -> None:
    """Raises `UserError` where the extra isn't installed."""
    from importlib.util import find_spec

    if find_spec("submitit") is None:
        raise UserError("hydra/launcher=slurm needs submitit", next_step="pip install 'dsrl[slurm]'")


def made(given: Mapping[str, Any]) -> LauncherSettings:
    """The launcher's dials, checked."""
    from omegaconf import OmegaConf

    plain = {
        name: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        for name, value in given.items()
    }
    request = build(plain.pop("request", None), "slurm")
    dials: LauncherSettings = make(LauncherSettings, {**plain, "request": request}, "hydra.launcher")
    return dials


def refuse_swept_requests(job_overrides: Sequence[Sequence[str]]) -> None:
    """An array's jobs ask for the same; a sweep over resources would be ignored without a word."""
    asked = [tuple(word for word in words if word.startswith("slurm.")) for words in job_overrides]
    differing = [words for words in asked if words != asked[0]]
    if differing:
        raise UserError(
            "the jobs of a sweep ask Slurm for the same", got=f"{' '.join(asked[0])} and {' '.join(differing[0])}",
            next_step="one sweep for each",
        )  # fmt: skip


def _checked(config: "DictConfig", loader: "ConfigLoader", overrides: Sequence[str]) -> dict[str, Any]:
    """One job's values. A mistake in any of them stops the sweep before anything is submitted."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict

    from dsrl.pipeline.config import resolve
    from dsrl.pipeline.experiment import check_elsewhere

    own = loader.load_sweep_config(config, list(overrides))
    HydraConfig.instance().set_config(own)
    with open_dict(own):
        del own["hydra"]
    values = resolve(own)
    check_elsewhere(values, overrides)
    return values


def open_books(values: Mapping[str, Any], folder: Path) -> None:
    """Make MLflow's database, the experiment and the sweep's run, once, before many jobs would."""
    for warning in warnings(dict(values)):
        say(f"WARNING {warning}")
    tracking = build(values["tracking"], "tracking")
    reason = tracking.prepare(Path(values["store"]).expanduser().absolute(), str(folder))
    if reason:
        say(f"WARNING tracking: {reason}. The jobs will try for themselves.")


def job(config: "DictConfig", folder: Path, overrides: list[str], number: int, run_pipeline: "RunPipeline") -> SweepJob:
    """One run of the sweep, as its own command line: it composes its config where it runs."""
    search = [word for word in config.hydra.overrides.hydra if word.lstrip("+").startswith("hydra.searchpath")]
    sources = config.hydra.runtime.config_sources
    folders = [source.path for source in sources if source.provider == "command-line"]
    own = [
        "hydra.mode=RUN",  # an experiment may say MULTIRUN
        f"hydra.run.dir={quoted(folder / str(number))}",
        f"tracking.sweep={quoted(folder)}",
    ]
    swept = any(word.startswith("tracking.sweep=") for word in overrides)
    arguments = [*(f"--config-dir={path}" for path in folders), *search, *overrides, *(own[:2] if swept else own)]
    return SweepJob(arguments, str(folder / str(number)), run_pipeline)


def send(dials: LauncherSettings, folder: Path, jobs: Sequence[SweepJob]) -> list[Sent]:
    """Hand the jobs to Slurm, as one array."""
    import submitit
    from submitit.core.utils import FailedJobError

    folder.mkdir(parents=True, exist_ok=True)
    request = dials.request
    executor = submitit.AutoExecutor(
        str(folder / ".submitit" / "%j"), cluster="slurm", slurm_max_num_timeout=request.restarts
    )
    executor.update_parameters(
        name=f"dsrl-{folder.name}",
        timeout_min=request.minutes,
        stderr_to_stdout=True,
        slurm_array_parallelism=dials.parallel,
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
    labels = told_apart([job.arguments for job in jobs])
    found = [
        Sent(one.job_id, job.folder, str(one.paths.stdout), label)
        for one, job, label in zip(sent, jobs, labels, strict=True)
    ]
    write_json(folder / SWEEP, [asdict(one) for one in found])
    return found


def told_apart(arguments: Sequence[Sequence[str]]) -> list[str]:
    """Of each job, the overrides that not all of them have."""
    common = set(arguments[0]).intersection(*arguments[1:])
    hidden = ("hydra.", "tracking.sweep=", "--config-dir")
    return [
        " ".join(word for word in words if not word.startswith(hidden) and (word not in common or len(arguments) == 1))
        for words in arguments
    ]


def tell(jobs: Sequence[Sent], folder: Path) -> None:
    """Where everything is, at once: the sweep outlives this process."""
    first, last = jobs[0].id, jobs[-1].id
    say(f"{len(jobs)} jobs are with Slurm: {first} to {last}" if len(jobs) > 1 else f"job {first} is with Slurm")
    say(f"sweep  {shown(folder)}\nlogs   {shown(folder)}/.submitit")
    say(f"follow dsrl status {shown(folder)}")
    say(f"end    scancel {first.partition('_')[0]}; the end of this process doesn't end them")


def returned(value: float | None) -> "JobReturn":
    """What Hydra hands to its sweeper: the trained model's pass@1."""
    from hydra.core.utils import JobReturn, JobStatus

    return JobReturn(_return_value=value, status=JobStatus.COMPLETED)


def say(text: str) -> None:
    """To standard error, as a run does."""
    print(text, file=sys.stderr, flush=True)
