"""`dsrl evaluate ... checkpoints=all` with real, tiny models."""

import json
import os
from pathlib import Path

import pytest

from tests.command import dsrl
from tests.e2e.tiny import tiny_model

pytestmark = pytest.mark.e2e


def test_checkpoints_of_a_folder_are_evaluated_and_reused(tmp_path: Path) -> None:
    """Two complete checkpoints and a truncated one; the second time everything is reused."""
    for step in (10, 20, 30):
        tiny_model(tmp_path / "training" / f"checkpoint-{step}", seed=step)
    weights = tmp_path / "training" / "checkpoint-30" / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 5)
    rows = [{"question": f"{number % 2 + 1} 2", "answer": str(number % 2 + 1)} for number in range(30)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = (
        "evaluate",
        "task=adhoc",
        "task.instruction=Count.",
        "task.answer.kind=number",
        "+task.answer.marker='#'",
        "task.test.path=test.jsonl",
        "task.test.input=question",
        "task.test.output=answer",
        "model=hf",
        "model.path=training",
        "model.prompt_format=raw",
        "model.max_length=64",
        "model.dtype=float32",
        "checkpoints=all",
        "evaluate_base.samples_per_item=4",
        "score.max_tokens=8",
        "tracking.enabled=false",
    )
    for number in (1, 2):
        done = dsrl(*words, f"hydra.run.dir=run{number}", cwd=tmp_path)
        assert done.code == 3, done.err
        assert "checkpoint-30" in done.err
        assert "model.safetensors" in done.err
        kept = json.loads((tmp_path / f"run{number}" / "checkpoints.json").read_text())["checkpoints"]
        assert [(row["step"], bool(row["fault"])) for row in kept] == [(10, False), (20, False), (30, True)]
        for step in (10, 20):
            metrics = json.loads((tmp_path / f"run{number}" / f"step_{step}" / "metrics.json").read_text())
            assert metrics["reused"] == {"evaluate_base": number == 2}
            assert metrics["evaluate"]["base"]["n"] == 30
            assert (tmp_path / f"run{number}" / f"step_{step}" / "report.html").is_file()
    assert kept[0]["pass_at_1"] != kept[1]["pass_at_1"]
