"""The child's handling of veRL's files, without veRL."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dsrl.data.model import Model, Sampling
from dsrl.graders import Number
from dsrl.stages.train import Dapo, Grpo, Verl
from dsrl.stages.train.checkpoints import complete_checkpoints
from dsrl.stages.train.job import TrainingJob
from dsrl.stages.train.verl import process_tree
from dsrl.stages.train.verl.metrics import GradedReplies, step_metrics, validation_score
from dsrl.stages.train.verl.reward import GRADES, compute_score
from dsrl.stages.train.verl.worker import VERL_METRICS, MetricsFollower, TrainingFailed, verl_environment


def job(folder: Path, algorithm: Any = None) -> TrainingJob:
    algorithm = algorithm or Grpo(prompts_per_step=2, responses_per_prompt=2)
    made = TrainingJob(
        folder=str(folder),
        model=Model(name="m", path="m"),
        algorithm=algorithm.label,
        settings=Verl(algorithm=algorithm, gpus=0).settings(),
        grader=Number(marker="#").key_fields(),
        steps=3,
        rows_per_step=2,
        seed=0,
        checkpoint_every=1,
        validation=Sampling(),
        validation_replies=2,
        keep="best",
        device_batch=None,
    )
    made.write()
    return made


def answer(made: TrainingJob, index: int, reply: str, split: str = "train") -> dict[str, float]:
    info = {"index": index, "split": split, "id": f"s{index}", "prompt": "1 + 1?"}
    return compute_score("dsrl", reply, "2", info, str(made.path("job.json")), num_turns=2)


def row(step: int, **data: Any) -> str:
    usual = {"training/global_step": step, "critic/score/mean": 0.5, "actor/pg_loss": 0.1}
    return json.dumps({"step": step, "data": {**usual, **data}}) + "\n"


def test_reward_is_the_graders_with_correctness_and_format_as_metrics(tmp_path: Path) -> None:
    made = job(tmp_path)
    assert answer(made, 0, "it is # 2") == {"score": 1.0, "correct": 1.0, "format_ok": 1.0}
    assert answer(made, 0, "it is # 3") == pytest.approx({"score": 0.1, "correct": 0.0, "format_ok": 1.0})
    assert answer(made, 0, "two", split="validation")["score"] == 0.0
    lines = [line for path in (tmp_path / GRADES).iterdir() for line in path.read_text().splitlines()]
    assert len(lines) == 2


def test_failing_grader_ends_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = job(tmp_path)
    answer(made, 0, "# 2")
    monkeypatch.setattr(Number, "parse", lambda _self, _reply: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        answer(made, 1, "# 2")
    assert "sample s1: ZeroDivisionError" in str(made.failure())
    with pytest.raises(TrainingFailed):
        MetricsFollower(made).update()


def test_grades_are_grouped_by_step(tmp_path: Path) -> None:
    made = job(tmp_path)
    grades = GradedReplies(made.path(GRADES), 2)
    for index, reply in ((0, "# 2"), (0, "# 2"), (1, "# 2"), (1, "no"), (2, "# 2")):
        answer(made, index, reply)
    grades.update()
    assert grades.take_step(1) == {"graded": 4, "correct": 0.75, "format_ok": 0.75, "zero_variance": 0.5}
    assert grades.take_step(2)["graded"] == 1
    assert grades.take_step(3) == {}


def test_step_is_written_to_progress_and_its_checkpoint_marked(tmp_path: Path) -> None:
    made = job(tmp_path)
    follower = MetricsFollower(made)
    for index in (0, 0, 1, 1):
        answer(made, index, "# 2")
    (tmp_path / "checkpoints" / "global_step_1").mkdir(parents=True)
    (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("1")
    initial = json.dumps({"step": 0, "data": {"val-aux/dsrl/correct/mean@2": 0.25}}) + "\n"
    later = row(1, **{"val-aux/dsrl/correct/mean@2": 0.5, "perf/throughput": 7.0})
    made.path(VERL_METRICS).write_text(initial + later + '{"step": 2, "da')
    follower.update()
    written = [json.loads(line) for line in made.path("progress.jsonl").read_text().splitlines()]
    assert written[0] == {"step": 0, "validation": 0.25}
    assert written[1] == {
        "step": 1,
        "reward": 0.5,
        "loss": 0.1,
        "tokens_per_second": 7.0,
        "graded": 4,
        "correct": 1.0,
        "format_ok": 1.0,
        "zero_variance": 1.0,
        "validation": 0.5,
    }
    (found,) = complete_checkpoints(tmp_path / "checkpoints")
    assert (found.step, found.validation) == (1, 0.5)


def test_missing_replies_end_the_training(tmp_path: Path) -> None:
    """veRL would pad the batch and continue."""
    made = job(tmp_path)
    answer(made, 0, "# 2")
    made.path(VERL_METRICS).write_text(row(1))
    with pytest.raises(TrainingFailed, match="3 of 4 replies"):
        MetricsFollower(made).update()


def test_loss_that_is_not_finite_ends_the_training(tmp_path: Path) -> None:
    made = job(tmp_path)
    made.path(VERL_METRICS).write_text(row(2, **{"actor/pg_loss": None}))
    with pytest.raises(TrainingFailed, match="step 2: loss"):
        MetricsFollower(made).update()
    with pytest.raises(FloatingPointError):
        step_metrics({"actor/grad_norm": float("inf")}, 1, 48)


def test_reply_counts_as_truncated_only_at_the_limit() -> None:
    """veRL's own share counts the replies as long as the longest of the batch."""
    data = {"response_length/max": 26.0, "response_length/clip_ratio": 0.3}
    assert step_metrics(data, 1, 48)["truncated"] == 0.0
    assert step_metrics(data, 1, 26)["truncated"] == 0.3


def test_dapo_stops_if_no_group_has_reward_variance(tmp_path: Path) -> None:
    made = job(tmp_path, Dapo(prompts_per_step=2, responses_per_prompt=2))
    follower = MetricsFollower(made)
    for index in range(40):
        answer(made, index, "no")
        answer(made, index, "no")
    with pytest.raises(TrainingFailed, match="rl=dapo"):
        follower.update()


def test_validation_score_is_read_from_verls_metrics(tmp_path: Path) -> None:
    made = job(tmp_path)
    assert validation_score({"val-aux/dsrl/correct/mean@2": 0.5}, made) == 0.5
    assert validation_score({"val-aux/dsrl/correct/mean@4": 0.5}, made) is None
    assert validation_score({"val-aux/dsrl/correct/mean@2": None}, made) is None


def test_descendants_in_other_sessions_are_killed(tmp_path: Path) -> None:
    script = f"""
import subprocess, sys
from dsrl.stages.train.verl import process_tree
process_tree.adopt_orphans()
middle = '''
import subprocess, sys
program = [sys.executable, "-c", "import time; time.sleep(600)"]
print(subprocess.Popen(program, start_new_session=True, stdout=-3, stderr=-3).pid, flush=True)
'''
child = subprocess.run([sys.executable, "-c", middle], capture_output=True, text=True)
open({str(tmp_path / "pid")!r}, "w").write(child.stdout)
process_tree.kill_descendants()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    pid = int((tmp_path / "pid").read_text())
    assert pid not in process_tree.descendants(1)


def test_descendants_are_found() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        assert process.pid in process_tree.descendants(os.getpid())
        process.kill()


def test_environment_of_verl_has_no_other_ray_and_no_telemetry(tmp_path: Path) -> None:
    inherited = {"RAY_ADDRESS": "other:6379", "MLFLOW_TRACKING_URI": "http://other", "HOME": "/home/me"}
    found = verl_environment(job(tmp_path), inherited)
    assert not {"RAY_ADDRESS", "MLFLOW_TRACKING_URI"} & found.keys()
    assert (found["HOME"], found["VERL_PLATFORM"], found["RAY_USAGE_STATS_ENABLED"]) == ("/home/me", "cpu", "0")
