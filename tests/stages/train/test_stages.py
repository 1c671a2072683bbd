from pathlib import Path
from typing import Any

import pytest

from dsrl.core.errors import UserError
from dsrl.data.source import Source
from dsrl.stages.train import Algorithm, DrGrpo, Grpo, Ppo, Sft, Trl
from dsrl.stages.train.trl import LOSSES


class Unknown(Algorithm):
    label = "unknown"


@pytest.mark.parametrize(
    ("stage", "named"),
    [
        (Trl(algorithm=Grpo(responses_per_prompt=1)), r"rl\.responses_per_prompt=1"),
        (Trl(algorithm=Unknown()), "rl=grpo"),
        (Trl(algorithm=Ppo()), "train=verl with rl=grpo, dr_grpo, ppo"),
        (Trl(algorithm=Grpo(), train_on="gold"), r"task\.gold\.path"),
        (Sft(train_on="gold", gold=Source(path="")), r"task\.gold\.path"),
        (Sft(train_on="gold", gold=Source(path="x", images=("picture",))), r"task\.gold\.images"),
    ],
)
def test_invalid_stage_is_refused_before_the_run(stage: Trl | Sft, named: str) -> None:
    with pytest.raises(UserError, match=named):
        stage.check()


@pytest.mark.parametrize("algorithm", [Grpo(), DrGrpo()])
def test_algorithms_of_trl_pass_the_check(algorithm: Algorithm) -> None:
    Trl(algorithm=algorithm).check()
    assert algorithm.label in LOSSES


def test_adapters_need_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsrl.core.child_process.find_spec", lambda name: None if name == "peft" else name)
    Trl(algorithm=Grpo()).check()
    with pytest.raises(UserError, match="peft"):
        Trl(algorithm=Grpo(), lora_rank=8).check()
    with pytest.raises(ValueError, match="lora_rank"):
        Trl(algorithm=Grpo(), lora_rank=0)


def test_settings_contain_adapters_only_if_there_are_any() -> None:
    assert "lora_rank" not in Trl(algorithm=Grpo()).settings()
    assert Trl(algorithm=Grpo(), lora_rank=8, lora_alpha=16).settings()["lora_alpha"] == 16


def key(**fields: Any) -> str:
    return Trl(algorithm=Grpo(), **fields).key({})


def test_only_fields_that_change_the_result_change_the_key(tmp_path: Path) -> None:
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    first.write_text('{"Input": "a", "Output": "1"}\n')
    second.write_text('{"Input": "a", "Output": "2"}\n')
    one, two = Source(path=str(first)), Source(path=str(second))
    assert key() == key(device_batch=4, threads=1, timeout_minutes=1.0) == key(gold=one)
    assert len({key(), key(seed=1), key(train_on="gold", gold=one), key(train_on="gold", gold=two)}) == 4


def test_defaults_are_the_papers_settings() -> None:
    assert Trl(algorithm=Grpo()).plan_steps(500) == (625, 4)
    assert Sft().plan_steps(500) == (23, 64)
