"""Token probabilities in rollouts (bfloat16 weights), training (float32 weights, bfloat16 autocast) and float32."""

from pathlib import Path
from typing import Any

from dsrl.data.model import Sampling
from dsrl.models import huggingface
from tests.gpu.conftest import Say
from tests.gpu.shapes import TINY, free, model, prompts

MAX_DIFFERENCE = 0.01
"""Mean difference of a token's probability that bfloat16 explains."""
LENGTH = 8 if TINY else 64


def test_rollouts_and_training_agree_on_probabilities(tmp_path: Path, say: Say) -> None:
    import torch

    with model("0.5B", tmp_path / "model") as base:
        device = huggingface.pick_device()
        tokenizer = huggingface.load_tokenizer(base)
        asks = [
            huggingface.Ask(huggingface.encode_prompt(tokenizer, text, "raw"), f"{number}", LENGTH)
            for number, text in enumerate(prompts(16, 64))
        ]
        half = huggingface.load_model(base, device)
        drawn = huggingface.draw(half, tokenizer, asks, Sampling(temperature=1.0, max_tokens=LENGTH))
        rows = [(ask.ids, reply.ids) for ask, reply in zip(asks, drawn, strict=True)]
        drawing = probabilities(half, rows, autocast=False)
        del half
        free()
        full = huggingface.load_model(base, device, "float32")
        learning, exact = probabilities(full, rows, autocast=True), probabilities(full, rows, autocast=False)
        for name, one, two in (
            ("bfloat16 weights, float32 weights under bfloat16 arithmetic", drawing, learning),
            ("bfloat16 weights, float32 throughout", drawing, exact),
            ("float32 weights under bfloat16 arithmetic, float32 throughout", learning, exact),
        ):
            gap = (one - two).abs()
            logs = (one.log() - two.log()).abs()
            say(
                "probabilities",
                between=name,
                mean=float(gap.mean()),
                worst=float(gap.max()),
                mean_log=float(logs.mean()),
                worst_log=float(logs.max()),
                mean_probability=float(two.mean()),
            )
            assert float(gap.mean()) < MAX_DIFFERENCE
        assert torch.isfinite(drawing).all()
        del full
        free()


def probabilities(weights: Any, rows: list[tuple[list[int], list[int]]], *, autocast: bool) -> Any:
    """Probability of each sampled token, shape (tokens,)."""
    import torch

    found = []
    with torch.no_grad(), torch.autocast(weights.device.type, torch.bfloat16, enabled=autocast):
        for prompt, reply in rows:
            ids = torch.tensor([prompt + reply], device=weights.device)
            logits = weights(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
            found.append(torch.softmax(logits, -1).gather(1, ids[0, len(prompt) :, None])[:, 0])
    return torch.cat(found).cpu()
