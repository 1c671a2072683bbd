"""`train=trl` with a model of realistic size: updates, resuming from a checkpoint, rollouts of the trained model."""

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from typing import Any

from dsrl.data.model import Sampling
from dsrl.models.rollout import TransformersRollout
from dsrl.stages.train import Grpo, Trl
from tests.e2e.tiny import surroundings
from tests.gpu.conftest import Say
from tests.gpu.shapes import TINY, model, prompts, state

RL: dict[str, Any] = {
    "learning_rate": 1e-5,
    "prompts_per_step": 4,
    "responses_per_prompt": 8,
    "temperature": 1.0,
    "max_response_tokens": 8 if TINY else 128,
    "kl": 0.01,
}
STAGE: dict[str, Any] = {"validation": 4, "validation_replies": 2, "checkpoint_every": 2, "device_batch": 16}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]


def test_grpo_trains_resumes_and_exports(tmp_path: Path, say: Say) -> None:
    with model("0.5B", tmp_path / "model") as base:
        for steps in (2, 4):  # the second one resumes from the checkpoint of the first
            rmtree(tmp_path / "run" / "scratch", ignore_errors=True)
            context = surroundings(tmp_path / "run")
            started = time.monotonic()
            after = Trl(algorithm=Grpo(**RL, max_steps=steps), **STAGE)(state(base), context)
            say("TRL", seconds=round(time.monotonic() - started, 1), steps=steps, memory=after.figures["memory"])
        job = json.loads((context.scratch / "job.json").read_text())
        assert job["resume"].endswith("checkpoint-2")
        trained = [row for row in rows(context.scratch) if "loss" in row]
        for row in trained:
            say("step", **row)
        assert [row["step"] for row in trained] == [1, 2, 3, 4]
        assert all(math.isfinite(row[name]) for row in trained for name in ("loss", "kl", "grad_norm", "reward"))
        assert any(row["grad_norm"] > 0 for row in trained)
        assert after.trained is not None
        result = replace(after.trained, path=str(context.scratch / "model"))
        assert result.fingerprint() != base.fingerprint()
        replies = TransformersRollout().generate(result, prompts(4, 32), Sampling(max_tokens=8), 2, context)
        assert all(reply.error is None for own in replies for reply in own)
        context.close()
