"""Estimate of the memory that a training needs on each GPU, from the shapes in the model's config.

Weights, gradients and both moments of Adam are float32 and sharded over the GPUs; one layer at a time is gathered in
the training dtype. vLLM takes its share of a GPU beside that, whatever the model. TRL runs in one process, loads the
reference model if the loss needs it, and never holds the logits of whole replies.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsrl.data.model import count_parameters

GIB = 2**30
STATE_BYTES = 16
"""Per parameter: weight, gradient and two moments in float32."""
WEIGHT_BYTES = 4
"""Per frozen parameter, in float32."""
REFERENCE_BYTES = 4
"""Per parameter of the reference model."""
LOGIT_BYTES = 10
"""Per logit: in the training dtype, in float32, and its gradient."""
SAMPLING_BYTES = 28
"""Per logit of the one token being sampled: twice in float32, its probability, and cumulative sums in float64."""
SAVED_BYTES = 2
"""Per number of a layer's input that is kept for the backward pass; the rest is recomputed (gradient checkpointing)."""
LAYER_NUMBERS = 34
"""Numbers per token and hidden unit in the backward pass of one layer (arXiv 2205.05198, without attention scores)."""
OVERHEAD = 2 * GIB
"""CUDA context, NCCL buffers and fragmentation."""


@dataclass(frozen=True)
class ModelShape:
    """The sizes in a model's config.json."""

    hidden: int
    layers: int
    vocabulary: int
    parameters: float


@dataclass(frozen=True)
class TrainingShape:
    """What a training holds in memory at the same time."""

    gpus: int
    sequences: int
    """Per device."""
    tokens: int
    """Longest prompt plus reply."""
    critic: bool = False
    offload: bool = False
    adapters: bool = False
    """Whether the weights are frozen and only small adapters are trained."""
    reference: bool = False
    """Whether the reference model is loaded."""
    whole_logits: bool = True
    """Whether the logits of whole replies are held; else those of the token being sampled."""


def read_shape(folder: Path, billions: float | None) -> ModelShape | None:
    """Read config.json in a model folder; `billions` of parameters override the count. None if a size is missing."""
    path = folder / "config.json"
    if not path.is_file():
        return None
    config: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    config = config.get("text_config", config)
    try:
        hidden, layers, vocabulary = (int(config[name]) for name in ("hidden_size", "num_hidden_layers", "vocab_size"))
        parameters = billions * 1e9 if billions else float(count_parameters(config))
    except (KeyError, TypeError):
        return None
    return ModelShape(hidden, layers, vocabulary, parameters)


def estimate_memory(model: ModelShape, training: TrainingShape) -> dict[str, float]:
    """GiB on one GPU during an update, by purpose."""
    per_parameter = (WEIGHT_BYTES if training.adapters else STATE_BYTES) + (STATE_BYTES if training.critic else 0)
    state = per_parameter * model.parameters / training.gpus * (0.25 if training.offload else 1)
    num_tokens = training.sequences * training.tokens
    saved = num_tokens * model.hidden * model.layers * SAVED_BYTES
    logits = num_tokens * LOGIT_BYTES if training.whole_logits else training.sequences * SAMPLING_BYTES
    parts = {
        "weights, gradients and optimizer": state,
        "base model": REFERENCE_BYTES * model.parameters * training.reference,
        "activations": saved + num_tokens * model.hidden * LAYER_NUMBERS,
        "logits": logits * model.vocabulary,
        "overhead": OVERHEAD,
    }
    return {name: value / GIB for name, value in parts.items() if value}


def update_warnings(parts: Mapping[str, float], gibibytes: float | None, cure: str) -> list[str]:
    """A warning if an update needs more than the `gibibytes` of the smallest GPU; `cure` ends the advice."""
    if gibibytes is None or sum(parts.values()) <= gibibytes:
        return []
    need = f"an update needs {describe_memory(parts)}, but the smallest GPU has {gibibytes:.0f} GiB"
    return [f"{need}: lower train.device_batch or rl.max_response_tokens{cure}"]


def verl_warnings(
    model: ModelShape, parts: Mapping[str, float], gibibytes: float | None, share: float, tensor_parallel: int
) -> list[str]:
    """Warnings about the update, and about vLLM's `share` of a GPU: it must hold the weights in 16 bits and leave a
    fifth for the KV cache."""
    warnings = update_warnings(parts, gibibytes, ", give train.offload=true, or use more GPUs")
    if gibibytes is not None and 2 * model.parameters / tensor_parallel / GIB >= 0.8 * share * gibibytes:
        warnings.append(
            f"vLLM's share of a GPU, {share * gibibytes:.0f} GiB, has no room for the KV cache beside the weights: "
            "raise train.gpu_memory or train.tensor_parallel"
        )
    return warnings


def describe_memory(parts: Mapping[str, float]) -> str:
    """`about 41 GiB on each GPU (weights, gradients and optimizer 30.0, ...)`."""
    inner = ", ".join(f"{name} {value:.1f}" for name, value in parts.items())
    return f"about {sum(parts.values()):.0f} GiB on each GPU ({inner})"
