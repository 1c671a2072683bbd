import json
from pathlib import Path

import pytest

from dsrl.stages.train.memory import (
    GIB,
    OVERHEAD,
    ModelShape,
    TrainingShape,
    estimate_memory,
    read_shape,
    verl_warnings,
)

SEVEN_B = ModelShape(hidden=3584, layers=28, vocabulary=152064, parameters=7.6e9)
STATE = "weights, gradients and optimizer"


def test_model_state_is_sharded_over_the_gpus() -> None:
    one, eight = (estimate_memory(SEVEN_B, TrainingShape(gpus, 4, 2560))[STATE] for gpus in (1, 8))
    assert one == pytest.approx(16 * 7.6e9 / 2**30)
    assert eight == pytest.approx(one / 8)


def test_critic_doubles_the_state_and_fewer_sequences_need_less() -> None:
    plain, critic = (estimate_memory(SEVEN_B, TrainingShape(8, 4, 2560, critic=critic)) for critic in (False, True))
    assert critic[STATE] == pytest.approx(2 * plain[STATE])
    assert estimate_memory(SEVEN_B, TrainingShape(8, 1, 2560))["logits"] == pytest.approx(plain["logits"] / 4)


def test_estimate_for_trl_agrees_with_a_measurement() -> None:
    """Peak of PyTorch's memory with a model of Qwen2.5's 1.5B shape on an H200, without and with a reference model
    (tests/gpu/test_memory.py)."""
    shape = ModelShape(hidden=1536, layers=28, vocabulary=151936, parameters=1543656960)
    for reference, measured in ((False, 23.99), (True, 29.75)):
        parts = estimate_memory(shape, TrainingShape(1, 8, 512, reference=reference, whole_logits=False))
        assert sum(parts.values()) - OVERHEAD / GIB == pytest.approx(measured, rel=0.05)
    adapters = estimate_memory(shape, TrainingShape(1, 8, 512, adapters=True, whole_logits=False))
    assert adapters[STATE] == pytest.approx(4 * 1543656960 / GIB)


def test_frozen_weights_need_no_optimizer_state() -> None:
    assert estimate_memory(SEVEN_B, TrainingShape(1, 4, 2560, adapters=True))[STATE] == pytest.approx(4 * 7.6e9 / 2**30)


def test_warnings_name_the_fields_to_change() -> None:
    parts = estimate_memory(SEVEN_B, TrainingShape(1, 64, 2560))
    update, rollouts = verl_warnings(SEVEN_B, parts, 24.0, 0.5, 1)
    assert "train.device_batch" in update
    assert "train.gpu_memory" in rollouts
    small = ModelShape(hidden=896, layers=24, vocabulary=151936, parameters=0.5e9)
    assert verl_warnings(small, estimate_memory(small, TrainingShape(1, 4, 1024)), 80.0, 0.5, 1) == []
    assert verl_warnings(SEVEN_B, parts, None, 0.5, 1) == []


QWEN_05B = {
    "hidden_size": 896,
    "num_hidden_layers": 24,
    "vocab_size": 151936,
    "intermediate_size": 4864,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}


def test_shape_is_read_from_the_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN_05B))
    shape = read_shape(tmp_path, None)
    assert shape is not None
    assert shape.parameters == pytest.approx(494e6, rel=0.01), "shared embeddings, grouped attention"
    assert read_shape(tmp_path, 0.6) == ModelShape(896, 24, 151936, 0.6e9)
    assert read_shape(tmp_path / "none", None) is None


def test_shape_of_an_unknown_architecture_is_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"n_embd": 768, "n_layer": 12}))
    assert read_shape(tmp_path, None) is None
