"""What the child does with veRL's files, without veRL."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dsrl.data.model import Model, Sampling
from dsrl.graders import Number
from dsrl.stages.train import Dapo, Grpo, Verl, checkpoints
from dsrl.stages.train.job import FAILURE, Job
from dsrl.stages.train.verl import process_tree
from dsrl.stages.train.verl.graded_replies import Grades
from dsrl.stages.train.verl.metrics import translated, validation
from dsrl.stages.train.verl.reward import GRADES, compute_score
from dsrl.stages.train.verl.worker import STEPS, Broken, Follower


def job(folder: Path, algorithm: Any = None) -> Job:
    algorithm = algorithm or Grpo(prompts_per_step=2, responses_per_prompt=2)
    made = Job(
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


def answer(made: Job, index: int, reply: str, split: str = "train") -> dict[str, float]:
    info = {"index": index, "split": split, "id": f"s{index}", "prompt": "1 + 1?"}
    return compute_score("dsrl", reply, "2", info, str(made.path("job.json")), num_turns=2)


def row(step: int, **data: Any) -> str:
    usual = {"training/global_step": step, "critic/score/mean": 0.5, "actor/pg_loss": 0.1}
    return json.dumps({"step": step, "data": {**usual, **data}}) + "\n"


def test_the_reward_is_the_graders_with_its_parts_as_metrics(tmp_path: Path) -> None:
    made = job(tmp_path)
    assert answer(made, 0, "it is # 2") == {"score": 1.0, "correct": 1.0, "format_ok": 1.0}
    assert answer(made, 0, "it is # 3") == pytest.approx({"score": 0.1, "correct": 0.0, "format_ok": 1.0})
    assert answer(made, 0, "two", split="validation")["score"] == 0.0
    lines = [line for path in (tmp_path / GRADES).iterdir() for line in path.read_text().splitlines()]
    assert len(lines) == 2


def test_a_grader_that_breaks_is_no_wrong_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = job(tmp_path)
    answer(made, 0, "# 2")
    monkeypatch.setattr(Number, "parse", lambda _self, _reply: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        answer(made, 1, "# 2")
    assert "the grader broke on sample s1: ZeroDivisionError" in json.loads(made.path(FAILURE).read_text())["reason"]
    with pytest.raises(Broken):
        Follower(made).look()


def test_shares_are_those_of_the_step(tmp_path: Path) -> None:
    made = job(tmp_path)
    grades = Grades(made.path(GRADES), 2)
    for index, reply in ((0, "# 2"), (0, "# 2"), (1, "# 2"), (1, "no"), (2, "# 2")):
        answer(made, index, reply)
    grades.look()
    assert grades.of_step(1) == {"graded": 4, "correct": 0.75, "format_ok": 0.75, "zero_variance": 0.5}
    assert grades.of_step(2)["graded"] == 1
    assert grades.of_step(3) == {}


def test_a_step_is_written_down_and_its_checkpoint_marked(tmp_path: Path) -> None:
    made = job(tmp_path)
    follower = Follower(made)
    for index in (0, 0, 1, 1):
        answer(made, index, "# 2")
    (tmp_path / "checkpoints" / "global_step_1").mkdir(parents=True)
    (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("1")
    initial = json.dumps({"step": 0, "data": {"val-aux/dsrl/correct/mean@2": 0.25}}) + "\n"
    later = row(1, **{"val-aux/dsrl/correct/mean@2": 0.5, "perf/throughput": 7.0})
    made.path(STEPS).write_text(initial + later + '{"step": 2, "da')
    follower.look()
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
    (found,) = checkpoints.whole(tmp_path / "checkpoints")
    assert (found.step, found.validation) == (1, 0.5)


def test_replies_that_never_came_end_the_training(tmp_path: Path) -> None:
    """veRL would pad the batch and go on."""
    made = job(tmp_path)
    answer(made, 0, "# 2")
    made.path(STEPS).write_text(row(1))
    with pytest.raises(Broken, match="3 of 4 replies never came"):
        Follower(made).look()


def test_a_loss_that_is_no_number_ends_the_training(tmp_path: Path) -> None:
    made = job(tmp_path)
    made.path(STEPS).write_text(row(2, **{"actor/pg_loss": None}))
    with pytest.raises(Broken, match="step 2: loss is no finite number"):
        Follower(made).look()
    with pytest.raises(FloatingPointError):
        translated({"actor/grad_norm": float("inf")}, 1, 48)


def test_a_reply_is_cut_only_where_it_reached_the_limit() -> None:
    """veRL's own share counts those as long as the longest of the batch."""
    data = {"response_length/max": 26.0, "response_length/clip_ratio": 0.3}
    assert translated(data, 1, 48)["truncated"] == 0.0
    assert translated(data, 1, 26)["truncated"] == 0.3


def test_groups_without_any_signal_would_keep_dapo_drawing_for_ever(tmp_path: Path) -> None:
    made = job(tmp_path, Dapo(prompts_per_step=2, responses_per_prompt=2))
    follower = Follower(made)
    for index in range(40):
        answer(made, index, "no")
        answer(made, index, "no")
    with pytest.raises(Broken, match="reward is constant"):
        follower.look()


def test_validation_is_found_where_it_is(tmp_path: Path) -> None:
    made = job(tmp_path)
    assert validation({"val-aux/dsrl/correct/mean@2": 0.5}, made) == 0.5
    assert validation({"val-aux/dsrl/correct/mean@4": 0.5}, made) is None
    assert validation({"val-aux/dsrl/correct/mean@2": None}, made) is None


def test_all_that_was_started_is_ended_whatever_session_it_is_in(tmp_path: Path) -> None:
    script = f"""
import subprocess, sys
from dsrl.stages.train.verl import process_tree
process_tree.adopt()
middle = '''
import subprocess, sys
program = [sys.executable, "-c", "import time; time.sleep(600)"]
print(subprocess.Popen(program, start_new_session=True, stdout=-3, stderr=-3).pid, flush=True)
'''
child = subprocess.run([sys.executable, "-c", middle], capture_output=True, text=True)
open({str(tmp_path / "pid")!r}, "w").write(child.stdout)
process_tree.end_all()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    pid = int((tmp_path / "pid").read_text())
    assert pid not in process_tree.below(1)


def test_descendants_are_found() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        assert process.pid in process_tree.below(os.getpid())
        process.kill()
