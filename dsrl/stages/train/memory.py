"""How much memory a training will take on each GPU, before it runs: an estimate, from the shapes in the model's config.

Weights, gradients and both moments of Adam are kept in float32 and shared out among the GPUs; one layer at a time is
gathered in the arithmetic's dtype. vLLM takes its share of a GPU beside that, whatever the model. TRL, in one process,
holds the base model a second time where the loss needs it, and never the logits of whole replies.
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
REFERENCE_BYTES = 4
"""A weight of the base model, from which the loss holds the divergence."""
LOGIT_BYTES = 10
"""A logit in the arithmetic's dtype, in float32, and its gradient."""
DRAWN_BYTES = 28
"""A logit of the one token that is drawn: twice in float32, its share, and sums in float64."""
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
    critic: bool = False
    offload: bool = False
    adapters: bool = False
    """Whether the weights stand still, and only small adapters are learned."""
    reference: bool = False
    """Whether the base model is held beside the one in training."""
    whole_logits: bool = True
    """Whether the logits of whole replies are held at once; else those of one token each, as they are drawn."""


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
    billed = billions * 1e9 if billions else float(_parameters(config, hidden, layers, vocabulary))
    return Shapes(hidden, layers, vocabulary, billed)


def _parameters(config: Mapping[str, Any], hidden: int, layers: int, vocabulary: int) -> int:
    """Of a decoder with a gated layer; keys and values may have fewer heads than queries."""
    inner = int(config.get("intermediate_size") or 4 * hidden)
    heads = int(config.get("num_attention_heads") or 1)
    width = int(config.get("head_dim") or hidden // heads)
    shared = int(config.get("num_key_value_heads") or heads)
    attention = 2 * hidden * width * (heads + shared)
    embeddings = 1 if config.get("tie_word_embeddings") else 2
    return layers * (attention + 3 * hidden * inner) + embeddings * vocabulary * hidden


def needed(model: Shapes, load: Load) -> dict[str, float]:
    """GiB on one GPU while it learns, by what they are for."""
    each = (WEIGHT_BYTES if load.adapters else STATE_BYTES) + (STATE_BYTES if load.critic else 0)
    state = each * model.parameters / load.gpus * (0.25 if load.offload else 1)
    width = load.sequences * load.tokens
    saved = width * model.hidden * model.layers * SAVED_BYTES
    logits = width * LOGIT_BYTES if load.whole_logits else load.sequences * DRAWN_BYTES
    parts = {
        "weights, gradients and optimizer": state,
        "base model": REFERENCE_BYTES * model.parameters * load.reference,
        "activations": saved + width * model.hidden * LAYER_NUMBERS,
        "logits": logits * model.vocabulary,
        "overhead": OVERHEAD,
    }
    return {name: value / GIB for name, value in parts.items() if value}


def warnings(
    model: Shapes, parts: Mapping[str, float], gibibytes: float | None, share: float, tensor_parallel: int
) -> list[str]:
    """What will not fit into GPUs of that size, and what to lower."""
    found = too_much(parts, gibibytes, ", give train.offload=true, or more GPUs")
    if gibibytes is not None and not rollouts_fit(model, gibibytes, share, tensor_parallel):
        found.append(
            f"vLLM's share of a GPU, {share * gibibytes:.0f} GiB, leaves no room beside the weights: raise "
            "train.gpu_memory or train.tensor_parallel"
        )
    return found


def too_much(parts: Mapping[str, float], gibibytes: float | None, cure: str) -> list[str]:
    """Where an update needs more than there is."""
    if gibibytes is None or sum(parts.values()) <= gibibytes:
        return []
    needs = f"the update needs {words(parts)}, and the smallest has {gibibytes:.0f}"
    return [f"{needs}: lower train.device_batch or rl.max_response_tokens{cure}"]


def rollouts_fit(model: Shapes, gibibytes: float, share: float, tensor_parallel: int) -> bool:
    """Whether vLLM's share of a GPU holds the weights in 16 bits and leaves a fifth of it for keys and values."""
    return 2 * model.parameters / tensor_parallel / GIB < 0.8 * share * gibibytes


def words(parts: Mapping[str, float]) -> str:
    """`about 41 GiB (weights, gradients and optimizer 30, ...)`."""
    inner = ", ".join(f"{name} {value:.1f}" for name, value in parts.items())
    return f"about {sum(parts.values()):.0f} GiB on each GPU ({inner})"
