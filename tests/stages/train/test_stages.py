from pathlib import Path
from typing import Any

import pytest

from dsrl.core.errors import UserError
from dsrl.data.source import Source
from dsrl.stages.train import Algorithm, DrGrpo, Grpo, NoTraining, Sft, Trl
from dsrl.stages.train.trl import LOSSES


class Unknown(Algorithm):
    label = "unknown"


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Trl(algorithm=Grpo(responses_per_prompt=1)), r"rl\.responses_per_prompt=1"),
        (Trl(algorithm=Unknown()), "grpo, dr_grpo"),
        (Trl(algorithm=Grpo(), train_on="gold"), "labelled data"),
        (Sft(train_on="gold", gold=Source(path="")), "labelled data"),
    ],
)
def test_what_cannot_work_is_refused_before_the_run(stage: Trl | Sft, message: str) -> None:
    with pytest.raises(UserError, match=message):
        stage.check()


@pytest.mark.parametrize("algorithm", [Grpo(), DrGrpo()])
def test_every_algorithm_of_this_engine_passes(algorithm: Algorithm) -> None:
    Trl(algorithm=algorithm).check()
    assert algorithm.label in LOSSES


def test_adapters_need_a_package_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsrl.core.child_process.find_spec", lambda name: None if name == "peft" else name)
    Trl(algorithm=Grpo()).check()
    with pytest.raises(UserError, match="peft must be installed"):
        Trl(algorithm=Grpo(), lora_rank=8).check()
    with pytest.raises(ValueError, match="lora_rank"):
        Trl(algorithm=Grpo(), lora_rank=0)


def test_the_child_hears_of_adapters_only_where_there_are_any() -> None:
    assert "lora_rank" not in Trl(algorithm=Grpo()).settings()
    assert Trl(algorithm=Grpo(), lora_rank=8, lora_alpha=16).settings()["lora_alpha"] == 16


def key(**fields: Any) -> str:
    return Trl(algorithm=Grpo(), **fields).key({})


def test_only_what_changes_the_result_changes_the_key(tmp_path: Path) -> None:
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    first.write_text('{"Input": "a", "Output": "1"}\n')
    second.write_text('{"Input": "a", "Output": "2"}\n')
    one, two = Source(path=str(first)), Source(path=str(second))
    assert key() == key(device_batch=4, threads=1, timeout_minutes=1.0) == key(gold=one)
    assert len({key(), key(seed=1), key(train_on="gold", gold=one), key(train_on="gold", gold=two)}) == 4


def test_the_papers_settings_are_the_defaults() -> None:
    assert Trl(algorithm=Grpo()).plan(500) == (625, 4)
    assert Sft().plan(500) == (23, 64)


def test_no_training_leaves_no_model() -> None:
    assert NoTraining.outputs == ("trained",)
