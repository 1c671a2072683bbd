"""The parent's side of a training, with toy children that load no model."""

import io
import json
import os
import signal
from pathlib import Path
from textwrap import dedent

import pytest

from dsrl.core.errors import StageFailed
from dsrl.data.model import Model, Sampling
from dsrl.graders import Number
from dsrl.llm import ReplyCache
from dsrl.pipeline.context import Context
from dsrl.pipeline.progress.progress import Progress
from dsrl.pipeline.store import Store
from dsrl.stages.train.job import TrainingJob, read_job
from dsrl.stages.train.run_child import (
    no_signal_warnings,
    progress_metrics,
    read_progress,
    run_training,
    thin_out,
    truncate_progress,
)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(
        run_dir=tmp_path / "run",
        store=Store(tmp_path / "store"),
        reply_cache=ReplyCache(tmp_path / "calls"),
        progress=Progress(io.StringIO()),
    )


def toy_job(folder: Path) -> TrainingJob:
    return TrainingJob(
        folder=str(folder),
        model=Model(name="m", path="m"),
        algorithm="toy",
        settings={"learning_rate": 0.1},
        grader=Number().key_fields(),
        steps=3,
        rows_per_step=1,
        seed=0,
        checkpoint_every=1,
        validation=Sampling(),
        validation_replies=1,
        keep="best",
        device_batch=None,
    )


def run(body: str, tmp_path: Path, context: Context, monkeypatch: pytest.MonkeyPatch, minutes: float = 1.0) -> object:
    head = """
        import json, os, sys, time
        from pathlib import Path
        Path(sys.argv[1]).with_name("pid").write_text(str(os.getpid()))
        from dsrl.core import child_process
        from dsrl.stages.train.job import read_job
        child_process.end_with_parent(sys.stdin)
        job = read_job(Path(sys.argv[1]))
    """
    (tmp_path / "toy_training.py").write_text(dedent(head) + dedent(body))
    monkeypatch.syspath_prepend(tmp_path)
    return run_training("toy_training", toy_job(tmp_path), 1, minutes, context)


def test_result_of_the_child_is_returned(tmp_path: Path, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    body = """
        for step in range(1, job.steps + 1):
            with job.path("progress.jsonl").open("a") as file:
                file.write(json.dumps({"step": step, "reward": 0.5}) + chr(10))
        job.path("result.json").write_text(json.dumps({"step": 3, "threads": os.environ["OMP_NUM_THREADS"]}))
    """
    assert run(body, tmp_path, context, monkeypatch) == {"step": 3, "threads": "1"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("print('the log says why'); sys.exit(7)", "exit code 7(.|\n)*the log says why"),
        ("raise RuntimeError('broke')", "RuntimeError: broke"),
        (
            "job.path('failure.json').write_text(json.dumps({'reason': 'loss is not finite'})); sys.exit(1)",
            "loss is not finite",
        ),
        ("os.kill(os.getpid(), 9)", "killed by signal 9"),
        ("pass", "exit code 0"),
    ],
)
def test_failure_names_the_cause(
    body: str, message: str, tmp_path: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StageFailed, match=message):
        run(body, tmp_path, context, monkeypatch)


@pytest.mark.e2e
def test_training_without_progress_is_killed(tmp_path: Path, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StageFailed, match=r"0\.1 minutes"):
        run("time.sleep(600)", tmp_path, context, monkeypatch, minutes=0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGCONT)


def test_result_of_an_earlier_attempt_is_ignored(
    tmp_path: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "result.json").write_text(json.dumps({"step": 3}))
    with pytest.raises(StageFailed):
        run("sys.exit(1)", tmp_path, context, monkeypatch)


def test_job_survives_the_file(tmp_path: Path) -> None:
    assert read_job(toy_job(tmp_path).write()) == toy_job(tmp_path)


def write_progress(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_validation_is_merged_into_the_row_of_its_step(tmp_path: Path) -> None:
    path = write_progress(
        tmp_path / "p", {"step": 0, "validation": 0.1}, {"step": 1, "reward": 0.5}, {"step": 1, "validation": 0.3}
    )
    rows = read_progress(path)
    assert rows == [{"step": 0, "validation": 0.1}, {"step": 1, "reward": 0.5, "validation": 0.3}]
    metrics = progress_metrics(rows)
    assert metrics["validation"] == [{"step": 0, "right": 0.1}, {"step": 1, "right": 0.3}]
    assert metrics["series"] == rows[1:]


def test_rows_after_the_checkpoint_and_an_incomplete_line_are_removed(tmp_path: Path) -> None:
    path = write_progress(tmp_path / "p", *({"step": step} for step in range(5)))
    with path.open("a") as file:
        file.write('{"step": 5, "rew')
    truncate_progress(path, 2)
    assert [row["step"] for row in read_progress(path)] == [0, 1, 2]
    truncate_progress(path, -1)
    assert read_progress(path) == []


def test_first_and_last_reward_are_means_over_a_tenth_of_the_steps() -> None:
    metrics = progress_metrics([{"step": step, "reward": float(step)} for step in range(1, 41)])
    assert (metrics["reward_first"], metrics["reward_last"]) == (2.5, 38.5)
    supervised = progress_metrics([{"step": 1, "loss": 0.5}])
    assert (supervised["reward_first"], supervised["reward_last"]) == (None, None)


@pytest.mark.parametrize("count", [1, 2, 199, 200, 201, 5000])
def test_series_is_thinned_out_evenly(count: int) -> None:
    rows = [{"step": step} for step in range(count)]
    thin = thin_out(rows, 200)
    assert len(thin) == min(count, 200)
    assert (thin[0], thin[-1]) == (rows[0], rows[-1])


@pytest.mark.parametrize(("shares", "warned"), [((1.0, 1.0), True), ((1.0, 0.9), False), ((), False)])
def test_warning_if_rewards_never_differ(shares: tuple[float, ...], warned: bool) -> None:
    rows = [{"step": step, "zero_variance": share} for step, share in enumerate(shares, 1)]
    assert bool(no_signal_warnings(rows)) == warned
