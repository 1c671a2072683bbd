"""Sampling and tokenizers with real transformers, in this process."""

import json
from pathlib import Path

import pytest

from dsrl.core.errors import UserError
from dsrl.data.model import Model, Sampling
from tests.e2e.tiny import tiny_model

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("top_p", [1.0, 0.7])
def test_token_frequencies_equal_their_probabilities(top_p: float) -> None:
    import torch

    from dsrl.models.huggingface import InverseCdf

    logits = torch.tensor([0.3, 2.0, -1.0, float("-inf"), 1.1])
    rows = 20_000
    sampling = Sampling(temperature=0.8, top_p=top_p)
    left = InverseCdf([f"stream {row}" for row in range(rows)], 1, sampling)(torch.empty(0), logits.repeat(rows, 1))
    shares = torch.bincount(left.argmax(dim=-1), minlength=5) / rows
    likely = torch.softmax(logits / 0.8, dim=-1)
    if top_p < 1:  # the likeliest token has 0.67, so two are needed to reach 0.7
        likely[[0, 2]] = 0.0
        likely /= likely.sum()
    assert torch.isfinite(left).sum(dim=-1).eq(1).all()
    assert (shares - likely).abs().max() < 0.015


def test_nan_logits_are_an_error() -> None:
    import torch

    from dsrl.models.huggingface import InverseCdf

    with pytest.raises(FloatingPointError):
        InverseCdf(["a"], 1, Sampling(temperature=0.0))(torch.empty(0), torch.tensor([[float("nan"), 1.0]]))


def test_a_silently_replaced_tokenizer_is_detected(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from dsrl.models import huggingface

    model = tiny_model(tmp_path)
    letters = Tokenizer(models.BPE({letter: number for number, letter in enumerate("abcdeHlo, 123#\u0120")}, []))
    letters.pre_tokenizer = pre_tokenizers.Split("l", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters, eos_token="#")
    tokenizer.save_pretrained(tmp_path)
    huggingface.write_tokenizer_check(tokenizer, tmp_path)
    huggingface.load_tokenizer(model)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "qwen2"}))
    with pytest.raises(UserError, match="Qwen2Tokenizer"):
        huggingface.load_tokenizer(model)


def test_chat_and_raw_prompts(tmp_path: Path) -> None:
    from dsrl.models import huggingface

    tokenizer = huggingface.load_tokenizer(tiny_model(tmp_path))
    assert huggingface.encode_prompt(tokenizer, "1 2", "raw") == [3, 4]
    with pytest.raises(UserError, match="chat template"):
        huggingface.encode_prompt(tokenizer, "1 2", "chat")
    tokenizer.chat_template = (
        "{% for m in messages %}2 {{ m.content }} {% endfor %}{% if add_generation_prompt %}#{% endif %}"
    )
    assert huggingface.encode_prompt(tokenizer, "1 2", "chat") == [4, 3, 4, 2]


def test_a_missing_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from dsrl.models import huggingface

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert huggingface.pick_device() == "cpu"
    with pytest.raises(UserError, match="GPU"):
        huggingface.pick_device("cuda")


def test_the_shorter_context_length_applies(tmp_path: Path) -> None:
    from dsrl.models import huggingface

    model = tiny_model(tmp_path)
    weights = huggingface.load_model(model)
    assert huggingface.context_length(model, weights) == 48
    assert huggingface.context_length(Model(name="long", path=model.path, max_length=1000), weights) == 64
