"""Training data of the baselines and ablations with a different data flow, on one store, with real training."""

import json
from typing import Any

import pyarrow.parquet
import pytest

from dsrl.core.parquet import read_table
from dsrl.data.sample import Sample
from tests.e2e.runs import SMALL, Place, requests

pytestmark = pytest.mark.e2e

PLAIN = tuple(word for word in SMALL if not word.startswith(("experiment=", "rl.")))
RL = tuple(word for word in SMALL if word.startswith("rl."))
TUNING = ("train.max_steps=2", "train.batch=2", "train.checkpoint_every=2")


def run(place: Place, experiment: str, *words: str) -> dict[str, Any]:
    """Run an experiment that must finish with a trained and evaluated model."""
    found = place.run(f"experiment=[quickstart,{experiment}]", *PLAIN, *words)
    assert found["status"] == "finished"
    assert found["evaluate"]["trained"]["n"] == 24
    return found


def rows(place: Place, found: dict[str, Any]) -> list[dict[str, Any]]:
    """The training rows."""
    text = (place.entry("train", found) / "train.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_a_sample_drawn_twice_is_trained_on_twice(finished: Place) -> None:
    found = run(finished, "ablation/select_probability", *RL, "m=40", "rl.max_steps=2")
    assert requests(found) == 0
    assert found["select"]["selected"] == 40
    distinct = found["stages"]["select"]["distinct"]
    assert distinct < 40
    assert len(trained := rows(finished, found)) == 40
    assert len({row["id"] for row in trained}) == distinct


def test_rejection_fine_tuning_uses_the_models_own_correct_rollouts(finished: Place) -> None:
    found = run(finished, "baseline/rft", *TUNING, "select=easiest")
    assert requests(found) == 0
    assert found["train"]["algorithm"] == "rft"
    table = finished.entry("score", found) / "rollouts.parquet"
    drawn = {(row["sample"], row["text"]) for row in pyarrow.parquet.read_table(table).to_pylist() if row["correct"]}
    assert {(row["id"], row["solution"]) for row in rows(finished, found)} <= drawn


def test_distillation_uses_the_teachers_correct_votes(finished: Place) -> None:
    found = run(finished, "baseline/distill", *TUNING)
    assert requests(found) == 0
    assert found["train"]["algorithm"] == "distill"
    trained = rows(finished, found)
    samples = {one.id: one for one in read_table(finished.entry("score", found) / "samples.parquet", Sample)}
    assert max(sum(row["id"] == identifier for row in trained) for identifier in samples) > 1
    assert all("####" in row["solution"] for row in trained)
    stored = "".join(path.read_text() for path in (finished.store / "calls").glob("*.jsonl"))
    assert all(json.dumps(row["solution"]) in stored for row in trained)


def test_self_instruct_grows_its_pool_from_the_demos(finished: Place) -> None:
    words = ("baseline/self_instruct", *RL, "self_instruct.round_size=8", "rl.max_steps=2")
    found = run(finished, *words)
    assert found["rows"]["self_instruct"]["out"] == 24
    assert requests(found) >= 24
    assert "probe" not in found["keys"]
    again = run(finished, *words)
    assert (requests(again), set(again["reused"].values())) == (0, {True})


def test_human_data_send_no_requests_and_provide_held_out_samples(finished: Place) -> None:
    found = run(finished, "baseline/human_sft", *TUNING)
    assert requests(found) == 0
    assert found["rows"]["seeds"] == {"in": 600, "out": 600, "rejected": {}}
    assert found["stages"]["train"]["held_out"] == 4
    assert len(rows(finished, found)) == 8
