import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dsrl.cli import slurm_launcher
from dsrl.cli.slurm_launcher import (
    TIME_LIMIT_SIGNAL,
    JobFailed,
    SubmittedJob,
    SweepJob,
    distinguishing_overrides,
    refuse_swept_requests,
    wait,
)
from dsrl.core.errors import StageFailed, UserError
from dsrl.infra.slurm.commands import JobState
from dsrl.main import launch, run_command
from tests.command import Outcome
from tests.infra.slurm.fake_commands import fake_commands

SINFO = "main*|4:00:00|2|gpu:4"
SWEEP = (
    "-m",
    "hydra/launcher=slurm",
    "task=quickstart",
    "teacher=offline",
    "model=quickstart",
    "tracking.enabled=false",
)
Call = Callable[..., Outcome]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """`dsrl -m hydra/launcher=slurm ...` in an empty folder, on a cluster that is only pretended."""
    fake_commands(tmp_path, monkeypatch, sinfo=SINFO, sbatch="Submitted batch job 41", srun="", squeue="", sacct="")

    def called(*arguments: str) -> Outcome:
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("SLURM_JOB_ID", raising=False)
        monkeypatch.setattr(sys, "argv", ["dsrl"])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        return Outcome(run_command([*SWEEP, *arguments]), *capfd.readouterr())

    return called


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("m=1,2", "slurm.partition=nope"), ["slurm.partition", "nope", "main"]),
        (("m=1,-2"), ["m: ", "-2"]),
        (("m=1,2", "slurm.gpus=1,2"), ["slurm.gpus=1 and slurm.gpus=2"]),
        (("m=1,2", "hydra.launcher.parallel=0"), ["hydra.launcher.parallel", "0"]),
    ],
)
def test_a_mistake_in_any_job_stops_all(arguments: tuple[str, ...] | str, words: list[str], call: Call) -> None:
    outcome = call(*([arguments] if isinstance(arguments, str) else arguments))
    assert outcome.code == 2, outcome.out + outcome.err
    assert "Traceback" not in outcome.err
    assert all(word in outcome.err for word in words), outcome.err
    assert not list(Path().glob("multirun/*/*/sweep.json"))


def test_the_jobs_are_sent_as_one_array(call: Call, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    from submitit.core.utils import DelayedSubmission

    asked = ("hydra.launcher.wait=false", "slurm.partition=main", "hydra.launcher.parallel=1")
    outcome = call("m=20,40", *asked, f"--config-dir={tmp_path}")
    assert outcome.code == 0, outcome.err
    assert "submitted 2 jobs: 41_0 to 41_1" in outcome.err
    (folder,) = tmp_path.glob("multirun/*/*")
    assert [job["label"] for job in json.loads((folder / "sweep.json").read_text())] == ["m=20", "m=40"]
    (text,) = [path.read_text() for path in folder.glob(".submitit/*/*submission.sh")]
    for line in ("--array=0-1%1", "--partition=main", "--time=240", "--nodes=1", "--requeue", "--signal=USR2@120"):
        assert f"#SBATCH {line}\n" in text
    assert "srun --unbuffered" in text
    job = DelayedSubmission.load(folder / ".submitit" / "41_1" / "41_1_submitted.pkl").function
    assert job.folder == str(folder / "1")
    own = ["hydra.mode=RUN", f"hydra.run.dir={folder}/1", f"tracking.sweep={folder}"]
    assert (job.arguments[0], job.arguments[-3:]) == (f"--config-dir={tmp_path}", own)
    assert {"task=quickstart", "model=quickstart", "m=40", "slurm.partition=main"} <= {*job.arguments[1:-3]}


def test_only_what_differs_names_a_job() -> None:
    common = ["--config-dir=/x", "task=a", "hydra.run.dir=/r/0"]
    assert distinguishing_overrides([[*common, "m=1"], [*common, "m=2"]]) == ["m=1", "m=2"]
    assert distinguishing_overrides([[*common, "m=1"]]) == ["task=a m=1"]


def test_jobs_that_ask_for_different_things_are_refused() -> None:
    refuse_swept_requests([["m=1", "slurm.gpus=1"], ["m=2", "slurm.gpus=1"]])
    with pytest.raises(UserError, match=r"slurm.gpus=1 and slurm.gpus=2"):
        refuse_swept_requests([["slurm.gpus=1"], ["slurm.gpus=2"]])


def sent(folder: Path, number: int, **said: object) -> SubmittedJob:
    """A job whose folder says this."""
    run = folder / str(number)
    run.mkdir(parents=True)
    job = f"41_{number}"
    if said:
        (run / "status.json").write_text(json.dumps({"slurm_job": job, **said}))
    if said.get("status") == "finished":
        (run / "metrics.json").write_text(json.dumps({"evaluate": {"trained": {"pass_at_1": 0.25 * number}}}))
    return SubmittedJob(job, str(run), str(folder / f"{job}.out"), f"m={number}")


def test_results_come_back_in_order(tmp_path: Path) -> None:
    jobs = [sent(tmp_path, number, status="finished") for number in (2, 1)]
    assert wait(jobs, 0.01) == [0.5, 0.25]


def test_every_job_that_failed_is_named_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_launcher, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(
        slurm_launcher.commands,
        "states",
        lambda jobs: {job: JobState("OUT_OF_MEMORY", exit_code="0:125") for job in jobs},
    )
    jobs = [
        sent(tmp_path, 0, status="finished"),
        sent(tmp_path, 1, status="failed", reason="the training failed\n  got: NaN"),
        sent(tmp_path, 2, status="running"),
        sent(tmp_path, 3),
    ]
    with pytest.raises(StageFailed, match="3 of 4 jobs failed") as caught:
        wait(jobs, 0.01)
    for words in ("41_1       failed      m=1  the training failed\n", "41_2.out", "Slurm: OUT_OF_MEMORY 0:125", "m=3"):
        assert words in str(caught.value)


def test_a_job_that_was_put_back_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_launcher, "SETTLE_SECONDS", 0.0)
    job = sent(tmp_path, 1, status="interrupted")
    looks = iter(
        [{"41_1": JobState("PREEMPTED")}, {"41_1": JobState("PENDING", "BeginTime")}, {"41_1": JobState("RUNNING")}]
    )

    def states(jobs: list[str]) -> dict[str, JobState]:
        found = next(looks)
        if found["41_1"].name == "RUNNING":
            (Path(job.folder) / "status.json").write_text('{"slurm_job": "41_1", "status": "finished"}')
        return found

    monkeypatch.setattr(slurm_launcher.commands, "states", states)
    assert wait([job], 0.0) == [None]


def test_what_another_job_left_in_the_folder_is_not_taken_for_this_one_s(tmp_path: Path) -> None:
    job = sent(tmp_path, 1, status="finished")
    assert slurm_launcher.reported_outcome(job) is not None
    assert slurm_launcher.reported_outcome(SubmittedJob("42_1", job.folder, job.log, job.label)) is None


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch):
    """Handlers as before."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, TIME_LIMIT_SIGNAL)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def job_that(monkeypatch: pytest.MonkeyPatch, does: Callable[[list[str]], int]) -> SweepJob:
    monkeypatch.setattr("dsrl.cli.app.dispatch", does)
    return SweepJob(["m=1"], "/nowhere", launch)


def test_a_failed_run_fails_the_job(monkeypatch: pytest.MonkeyPatch, signals: None) -> None:
    with pytest.raises(JobFailed, match="exit code 3"):
        job_that(monkeypatch, lambda arguments, run_pipeline: 3)()


def test_a_run_that_is_ended_from_outside_leaves_no_result(monkeypatch: pytest.MonkeyPatch, signals: None) -> None:
    """Slurm may start it again, so that submitit must not take it for done."""

    def ended(arguments: list[str], run_pipeline: object) -> int:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        return 143

    with pytest.raises(SystemExit, match="143"):
        job_that(monkeypatch, ended)()


def test_before_its_time_is_up_a_run_ends_and_is_put_back(monkeypatch: pytest.MonkeyPatch, signals: None) -> None:
    class PutBack(Exception):
        pass

    def submitit(number: int, frame: object) -> None:
        raise PutBack

    def late(arguments: list[str], run_pipeline: object) -> int:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), TIME_LIMIT_SIGNAL)
        return 130

    signal.signal(TIME_LIMIT_SIGNAL, submitit)
    with pytest.raises(PutBack):
        job_that(monkeypatch, late)()
