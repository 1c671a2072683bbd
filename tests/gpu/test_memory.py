"""The memory estimate of a GRPO update, compared with a measurement."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dsrl.data.model import Sampling
from dsrl.stages.train import Grpo, Trl
from dsrl.stages.train.job import TrainingJob, write_rows
from dsrl.stages.train.memory import GIB, OVERHEAD, estimate_memory, read_shape
from dsrl.stages.train.rows import training_rows
from tests.command import CHECKOUT
from tests.gpu.conftest import Say
from tests.gpu.shapes import TASK, TINY, make, state

SEQUENCES, WORDS = 8, 256
REPLY = 8 if TINY else 256
BOUND = 1.25
CHILD = """
import json, sys, torch
from transformers import TrainerCallback
from pathlib import Path
from dsrl.stages.train.job import read_job
from dsrl.stages.train.trl_worker import build_trainer, grpo_arguments
from dsrl.stages.train.hf_worker import load_run

MARKS = {}
class Marks(TrainerCallback):
    def note(self, name):
        if torch.cuda.is_available() and name not in MARKS:
            both = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
            MARKS[name] = [round(bytes / 2**30, 3) for bytes in both]
            torch.cuda.reset_peak_memory_stats()
    def on_step_begin(self, args, state, control, **others):
        self.note(f"begin {state.global_step}")
    def on_pre_optimizer_step(self, args, state, control, **others):
        self.note(f"backward {state.global_step}")
    def on_optimizer_step(self, args, state, control, **others):
        self.note(f"update {state.global_step}")

run = load_run(read_job(Path(sys.argv[1])))
trainer = build_trainer(run, {**grpo_arguments(run), "save_strategy": "no"})
replies, marks = run.replies, Marks()
def watched(*arguments):
    completions = replies(*arguments)
    marks.note(f"drawing {trainer.state.global_step}")
    return completions
run.replies = watched
trainer.add_callback(marks)
trainer.train()
print("MARKS", json.dumps({"parameters": sum(weights.numel() for weights in trainer.model.parameters()), **MARKS}))
"""


def write_job(base_size: str, kl: float, folder: Path) -> tuple[TrainingJob, Trl]:
    """A job of two updates with one device batch each."""
    base = make(base_size, folder / "model")
    own = state(base, words=WORDS)
    stage = Trl(
        algorithm=Grpo(
            prompts_per_step=1, responses_per_prompt=SEQUENCES, max_response_tokens=REPLY, max_steps=2, kl=kl
        )
    )
    write_rows(folder / "train.jsonl", training_rows(own, "selected", None, 0))
    write_rows(folder / "validation.jsonl", ())
    job = TrainingJob(
        folder=str(folder),
        model=base,
        algorithm="grpo",
        settings=stage.settings(),
        grader=TASK.answer.key_fields(),
        steps=2,
        rows_per_step=1,
        seed=0,
        checkpoint_every=2,
        validation=Sampling(),
        validation_replies=1,
        keep="last",
        device_batch=None,
    )
    return job, stage


@pytest.mark.parametrize(("size", "kl"), [("0.5B", 0.01), ("1.5B", 0.0), ("1.5B", 0.01), ("3B", 0.0)])
def test_estimate_agrees_with_the_measured_peak(size: str, kl: float, tmp_path: Path, say: Say) -> None:
    job, stage = write_job(size, kl, tmp_path)
    done = subprocess.run(
        [sys.executable, "-P", "-c", CHILD, str(job.write())],
        cwd=CHECKOUT, capture_output=True, text=True, check=False, env=child_environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    marks = json.loads(done.stdout.split("MARKS ")[1])
    model = read_shape(Path(job.model.path or ""), None)
    assert model is not None
    parts = estimate_memory(model, replace(stage.memory_shape(job), tokens=WORDS + REPLY))
    estimate = sum(parts.values()) - OVERHEAD / GIB
    say("memory", size=size, kl=kl, parts={name: round(value, 2) for name, value in parts.items()}, **marks)
    assert model.parameters == pytest.approx(marks["parameters"], rel=0.02)
    peaks = [values[1] for values in marks.values() if isinstance(values, list)]
    if peaks:
        say(
            "estimate",
            size=size,
            kl=kl,
            estimate=round(estimate, 2),
            peak=max(peaks),
            ratio=round(estimate / max(peaks), 3),
        )
        assert 1 / BOUND < estimate / max(peaks) < BOUND


def child_environment() -> dict[str, str]:
    from dsrl.core.child_process import command

    return command("none", []).environment
