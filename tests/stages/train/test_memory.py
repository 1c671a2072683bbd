import json
from pathlib import Path

import pytest

from dsrl.infra.gpus import Gpus, parsed
from dsrl.stages.train import memory
from dsrl.stages.train.memory import Load, Shapes

SEVEN = Shapes(hidden=3584, layers=28, vocabulary=152064, parameters=7.6e9)


def test_the_state_of_a_model_is_shared_out_among_the_gpus() -> None:
    loads = [Load(gpus, 4, 2560, critic=False, offload=False) for gpus in (1, 8)]
    states = [memory.needed(SEVEN, load)["weights, gradients and optimizer"] for load in loads]
    assert states[0] == pytest.approx(16 * 7.6e9 / 2**30)
    assert states[1] == pytest.approx(states[0] / 8)


def test_a_critic_doubles_it_and_fewer_sequences_need_less() -> None:
    one, two = (memory.needed(SEVEN, Load(8, 4, 2560, critic=critic, offload=False)) for critic in (False, True))
    assert two["weights, gradients and optimizer"] == pytest.approx(2 * one["weights, gradients and optimizer"])
    few = memory.needed(SEVEN, Load(8, 1, 2560, critic=False, offload=False))
    assert few["logits"] == pytest.approx(one["logits"] / 4)


def test_what_trl_holds_is_what_a_gpu_has_shown() -> None:
    """Most that PyTorch held while a model of Qwen2.5's 1.5B shape learned, without and with a divergence to hold
    (tests/gpu/test_memory.py on an H200)."""
    shape = Shapes(hidden=1536, layers=28, vocabulary=151936, parameters=1543656960)
    for reference, measured in ((False, 23.99), (True, 29.75)):
        parts = memory.needed(shape, Load(1, 8, 512, reference=reference, whole_logits=False))
        assert sum(parts.values()) - memory.OVERHEAD / memory.GIB == pytest.approx(measured, rel=0.05)
    adapters = memory.needed(shape, Load(1, 8, 512, adapters=True, whole_logits=False))
    assert adapters["weights, gradients and optimizer"] == pytest.approx(4 * 1543656960 / memory.GIB)


def test_weights_that_stand_still_need_no_optimizer() -> None:
    load = Load(1, 4, 2560, critic=False, offload=False, adapters=True)
    assert memory.needed(SEVEN, load)["weights, gradients and optimizer"] == pytest.approx(4 * 7.6e9 / 2**30)


def test_what_does_not_fit_is_warned_of() -> None:
    parts = memory.needed(SEVEN, Load(1, 64, 2560, critic=False, offload=False))
    said = " ".join(memory.warnings(SEVEN, parts, 24.0, 0.5, 1))
    assert "train.device_batch" in said
    assert "train.gpu_memory" in said
    small = Shapes(hidden=896, layers=24, vocabulary=151936, parameters=0.5e9)
    assert (
        memory.warnings(small, memory.needed(small, Load(1, 4, 1024, critic=False, offload=False)), 80.0, 0.5, 1) == []
    )
    assert memory.warnings(SEVEN, parts, None, 0.5, 1) == []


def test_the_shapes_are_read_from_the_config(tmp_path: Path) -> None:
    config = {"hidden_size": 3584, "num_hidden_layers": 28, "vocab_size": 152064, "intermediate_size": 18944}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = memory.shapes(tmp_path, None)
    assert found is not None
    assert found.parameters == pytest.approx(7.6e9, rel=0.1)
    small = {"hidden_size": 896, "num_hidden_layers": 24, "vocab_size": 151936, "intermediate_size": 4864}
    heads = {"num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True}
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "config.json").write_text(json.dumps({**small, **heads}))
    least = memory.shapes(tmp_path / "small", None)
    assert least is not None
    assert least.parameters == pytest.approx(494e6, rel=0.01), "embeddings and keys are shared"
    assert memory.shapes(tmp_path, 0.5) == Shapes(3584, 28, 152064, 0.5e9)
    assert memory.shapes(tmp_path / "none", None) is None


@pytest.mark.parametrize(
    ("report", "visible", "expected"),
    [
        ("0, 81559\n1, 81559\n", None, Gpus(("0", "1"), 81559 / 1024)),
        ("0, 81559\n1, 81559\n", "1", Gpus(("1",), 81559 / 1024)),
        ("0, 81559\n", "", Gpus((), 81559 / 1024)),
        ("0, [N/A]\n", None, Gpus(("0",), None)),
        ("", "0", Gpus()),
        ("No devices were found\n", None, Gpus()),
    ],
)
def test_the_gpus_of_this_machine(report: str, visible: str | None, expected: Gpus) -> None:
    assert parsed(report, visible) == expected
