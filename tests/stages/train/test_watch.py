"""The parent's side, with children that hold no model."""

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
from dsrl.stages.train.job import Job, read_job
from dsrl.stages.train.run_child import train


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(
        run_dir=tmp_path / "run",
        store=Store(tmp_path / "store"),
        calls=ReplyCache(tmp_path / "calls"),
        progress=Progress(io.StringIO()),
    )


def job(folder: Path) -> Job:
    return Job(
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
    return train("toy_training", job(tmp_path), 1, minutes, context)


def test_a_training_that_ends_well_says_so(tmp_path: Path, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
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
            "job.path('failure.json').write_text(json.dumps({'reason': 'loss is no number'})); sys.exit(1)",
            "is no number",
        ),
        ("os.kill(os.getpid(), 9)", "killed by signal 9"),
        ("pass", "exit code 0"),
    ],
)
def test_a_training_that_breaks_fails_with_its_reason(
    body: str, message: str, tmp_path: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StageFailed, match=message):
        run(body, tmp_path, context, monkeypatch)


@pytest.mark.e2e
def test_a_training_that_stands_still_is_ended(
    tmp_path: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StageFailed, match="no step within"):
        run("time.sleep(600)", tmp_path, context, monkeypatch, minutes=0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGCONT)


def test_what_an_earlier_try_left_is_not_taken_for_a_result(
    tmp_path: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "result.json").write_text(json.dumps({"step": 3}))
    with pytest.raises(StageFailed):
        run("sys.exit(1)", tmp_path, context, monkeypatch)


def test_a_job_survives_the_way_to_the_child(tmp_path: Path) -> None:
    assert read_job(job(tmp_path).write()) == job(tmp_path)
