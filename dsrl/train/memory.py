"""How much memory a training will take on each GPU, before it runs: an estimate, from the shapes in the model's config.

Weights, gradients and both moments of Adam are kept in float32 and shared out among the GPUs; one layer at a time is
gathered in the arithmetic's dtype. vLLM takes its share of a GPU beside that, whatever the model.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GIB = 2**30
STATE_BYTES = 16
"""A parameter's weight, gradient and two moments, in float32."""
WEIGHT_BYTES = 4
"""A parameter that stands still, in float32."""
LOGIT_BYTES = 10
"""A logit in the arithmetic's dtype, in float32, and its gradient."""
SAVED_BYTES = 2
"""A number kept of a layer's input for the backward pass, which computes the rest again."""
LAYER_NUMBERS = 34
"""Numbers a token and hidden unit that one layer's backward pass holds (arXiv 2205.05198, without attention scores)."""
OVERHEAD = 2 * GIB
"""CUDA's context, NCCL's buffers and fragments."""


@dataclass(frozen=True)
class Shapes:
    """What a config.json says of a model's size."""

    hidden: int
    layers: int
    vocabulary: int
    parameters: float


@dataclass(frozen=True)
class Load:
    """What is held at a time."""

    gpus: int
    sequences: int
    """On one device."""
    tokens: int
    """Of the longest question and reply."""
    critic: bool
    offload: bool
    adapters: bool = False
    """Whether the weights stand still, and only small adapters are learned."""


def shapes(folder: Path, billions: float | None) -> Shapes | None:
    """Out of a model folder; None where it doesn't say enough."""
    path = folder / "config.json"
    if not path.is_file():
        return None
    config: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    config = config.get("text_config", config)
    try:
        hidden, layers, vocabulary = (int(config[name]) for name in ("hidden_size", "num_hidden_layers", "vocab_size"))
    except (KeyError, TypeError):
        return None
    inner = int(config.get("intermediate_size") or 4 * hidden)
    guess = layers * (4 * hidden**2 + 3 * hidden * inner) + 2 * vocabulary * hidden
    return Shapes(hidden, layers, vocabulary, billions * 1e9 if billions else float(guess))


def needed(model: Shapes, load: Load) -> dict[str, float]:
    """GiB on one GPU while it learns, by what they are for."""
    each = (WEIGHT_BYTES if load.adapters else STATE_BYTES) + (STATE_BYTES if load.critic else 0)
    state = each * model.parameters / load.gpus * (0.25 if load.offload else 1)
    width = load.sequences * load.tokens
    saved = width * model.hidden * model.layers * SAVED_BYTES
    parts = {
        "weights, gradients and optimizer": state,
        "activations": saved + width * model.hidden * LAYER_NUMBERS,
        "logits": width * model.vocabulary * LOGIT_BYTES,
        "overhead": OVERHEAD,
    }
    return {name: value / GIB for name, value in parts.items()}


def warnings(
    model: Shapes, parts: Mapping[str, float], gibibytes: float | None, share: float, tensor_parallel: int
) -> list[str]:
    """What will not fit into GPUs of that size, and what to lower."""
    if gibibytes is None:
        return []
    found = []
    if sum(parts.values()) > gibibytes:
        found.append(
            f"the update needs {words(parts)}, and the smallest has {gibibytes:.0f}: lower train.device_batch or "
            "rl.max_response_tokens, give train.offload=true, or more GPUs"
        )
    if not rollouts_fit(model, gibibytes, share, tensor_parallel):
        found.append(
            f"vLLM's share of a GPU, {share * gibibytes:.0f} GiB, leaves no room beside the weights: raise "
            "train.gpu_memory or train.tensor_parallel"
        )
    return found


def rollouts_fit(model: Shapes, gibibytes: float, share: float, tensor_parallel: int) -> bool:
    """Whether vLLM's share of a GPU holds the weights in 16 bits and leaves a fifth of it for keys and values."""
    return 2 * model.parameters / tensor_parallel / GIB < 0.8 * share * gibibytes


def words(parts: Mapping[str, float]) -> str:
    """`about 41 GiB (weights, gradients and optimizer 30, ...)`."""
    inner = ", ".join(f"{name} {value:.1f}" for name, value in parts.items())
    return f"about {sum(parts.values()):.0f} GiB on each GPU ({inner})"
