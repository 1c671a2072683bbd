"""What `dsrl.stages.train.memory` foretells of a GRPO update, against what it took."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dsrl.data.model import Sampling
from dsrl.stages.train import Grpo, Trl, memory
from dsrl.stages.train.job import Job, write_rows
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
from dsrl.stages.train.trl_worker import settings, trainer
from dsrl.stages.train.hf_worker import load

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

trainee = load(read_job(Path(sys.argv[1])))
made = trainer(trainee, {**settings(trainee), "save_strategy": "no"})
draw, marks = trainee.replies, Marks()
def watched(*asked):
    found = draw(*asked)
    marks.note(f"drawing {made.state.global_step}")
    return found
trainee.replies = watched
made.add_callback(marks)
made.train()
print("MARKS", json.dumps({"parameters": sum(weights.numel() for weights in made.model.parameters()), **MARKS}))
"""


def job(base_size: str, kl: float, folder: Path) -> tuple[Job, Trl]:
    """Two updates of one device batch each."""
    base = make(base_size, folder / "model")
    own = state(base, words=WORDS)
    stage = Trl(
        algorithm=Grpo(
            prompts_per_step=1, responses_per_prompt=SEQUENCES, max_response_tokens=REPLY, max_steps=2, kl=kl
        )
    )
    write_rows(folder / "train.jsonl", training_rows(own, "selected", None, 0))
    write_rows(folder / "validation.jsonl", ())
    made = Job(
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
    return made, stage


@pytest.mark.parametrize(("size", "kl"), [("0.5B", 0.01), ("1.5B", 0.0), ("1.5B", 0.01), ("3B", 0.0)])
def test_the_estimate_of_a_grpo_update(size: str, kl: float, tmp_path: Path, say: Say) -> None:
    made, stage = job(size, kl, tmp_path)
    done = subprocess.run(
        [sys.executable, "-P", "-c", CHILD, str(made.write())],
        cwd=CHECKOUT, capture_output=True, text=True, check=False, env=child_environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    marks = json.loads(done.stdout.split("MARKS ")[1])
    model = memory.shapes(Path(made.model.path or ""), None)
    assert model is not None
    parts = memory.needed(model, replace(stage.load(made), tokens=WORDS + REPLY))
    foretold = sum(parts.values()) - memory.OVERHEAD / memory.GIB
    say("memory", size=size, kl=kl, parts={name: round(value, 2) for name, value in parts.items()}, **marks)
    assert model.parameters == pytest.approx(marks["parameters"], rel=0.02)
    peaks = [values[1] for values in marks.values() if isinstance(values, list)]
    if peaks:
        say(
            "estimate",
            size=size,
            kl=kl,
            foretold=round(foretold, 2),
            peak=max(peaks),
            ratio=round(foretold / max(peaks), 3),
        )
        assert 1 / BOUND < foretold / max(peaks) < BOUND


def child_environment() -> dict[str, str]:
    from dsrl.core.child_process import command

    return command("none", []).environment
