"""The language model that is measured and trained, how it is sampled, and what a completion holds."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field

from dsrl.core.component import Component, component, record
from dsrl.core.digest import digest, model_digest
from dsrl.core.errors import UserError

GOOD_ENDS = frozenset(
    {
        *("stop", "eos", "eos_token", "stop_token", "stop_sequence", "end_turn", "end"),
        *("tool_calls", "tool_call", "tool_use", "function_call"),
        *("complete", "completed", "finished", "done", "normal"),
    }
)
"""Finish reasons of replies that the model ended itself; an absent one counts as such."""
CUT_ENDS = frozenset({"length", "max_tokens", "max_output_tokens", "model_length", "max_length", "token_limit"})
"""Finish reasons of replies that were cut at the token limit."""
FILTER_WORDS = ("filter", "refus", "safety", "recitation", "prohibited", "blocklist", "spii", "sensitive", "moderation")


def was_truncated(finish_reason: str | None) -> bool:
    """Whether a reply with this finish reason was cut at the token limit."""
    return (finish_reason or "").lower() in CUT_ENDS


class ModelRecipe(Protocol):
    """Creates a model folder on first use; the quickstart trains its tiny base models this way."""

    def folder(self) -> Path:
        """The Hugging Face folder, created now if it does not exist."""

    def is_made(self) -> bool: ...


@component("data.model")
class Model(Component):
    """A causal language model in Hugging Face format, or the name under which a server offers one."""

    name: str
    """Short name used in reports."""
    path: str | None = None
    """Local folder or hub id; None with `prepare`, or for a model that a server offers under `name`."""
    revision: str | None = None
    """Commit of the hub repository; ignored for a local folder."""
    prepare: object | None = None
    """A recipe that creates the folder on first use, instead of `path`."""
    prompt_format: Literal["raw", "chat"] = "chat"
    """`raw`: the prompt as plain text, for base models. `chat`: the tokenizer's chat template, for instruct models.
    The same in pass rates, training and evaluation."""
    max_length: int = Field(default=4096, gt=0)
    """Longest prompt plus reply, in tokens."""
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "auto"
    trust_remote_code: bool = False
    images: bool | None = None
    """Whether it accepts images; None: read from its config.json, if there is one. Changes no result."""
    parameters: float | None = Field(default=None, gt=0)
    """Billions of parameters, for the forecast of GPU time; None: read from the folder. Changes no result."""

    def locate(self) -> "Model":
        """This model with `path` resolved, created on first use. Raises `UserError` for a missing folder."""
        if self.prepare is not None:
            path = str(self.prepare.folder())  # type: ignore[attr-defined]
            return dataclasses.replace(self, path=path, prepare=None)
        if self.path is None:
            return self
        local = Path(self.path).expanduser()
        if not local.is_dir() and self.path.startswith(("/", ".", "~")):
            raise UserError("model.path: no such folder", got=self.path, next_step="check the path")
        return dataclasses.replace(self, path=str(local.resolve())) if local.is_dir() else self

    def reads_images(self) -> bool | None:
        """Whether it accepts images; None if that can't be known before it is loaded."""
        if self.images is not None or self.path is None or self.prepare is not None:
            return self.images
        config = Path(self.path).expanduser() / "config.json"
        return reads_images(json.loads(config.read_text(encoding="utf-8"))) if config.is_file() else None

    def is_made(self) -> bool:
        """Whether `locate` would find it without creating it first."""
        return self.prepare is None or bool(self.prepare.is_made())  # type: ignore[attr-defined]

    def fingerprint(self) -> str:
        """Digest of the weights and the prompt format: content for a folder, name and revision for a hub id, the name
        alone for a served model (two models must never be served under one name)."""
        model = self.locate()
        folder = Path(model.path) if model.path else None
        local = folder is not None and folder.is_dir()
        weights = model_digest(folder) if folder and local else [model.path or self.name, model.revision]
        code = ["trust_remote_code"] if model.trust_remote_code else []
        return digest([weights, model.prompt_format, model.max_length, model.dtype, *code])


def reads_images(config: Mapping[str, Any]) -> bool:
    """Whether a model's `config.json` describes a vision-language model."""
    return any(name in config for name in ("vision_config", "vision_model_config", "image_token_id"))


def count_parameters(config: Mapping[str, Any]) -> int:
    """Weights of a decoder with gated layers and grouped attention (Llama, Qwen2, Mistral), without norms and biases.
    `config` is its config.json. Raises KeyError for other architectures."""
    width, heads = config["hidden_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or width // heads
    attention = 2 * width * head_dim * (heads + (config.get("num_key_value_heads") or heads))
    mlp = 3 * width * config["intermediate_size"]
    embeddings = config["vocab_size"] * width * (1 if config.get("tie_word_embeddings") else 2)
    return int(embeddings + config["num_hidden_layers"] * (attention + mlp))


@component("data.sampling")
class Sampling(Component):
    """Sampling parameters of a reply."""

    temperature: float = Field(default=0.7, ge=0)
    """0 is greedy decoding."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=1024, gt=0)
    """Longest reply in tokens; a longer one is cut and counted as truncated."""


@record
class Usage:
    """Tokens billed for one completion; the prompt of an n-way request is billed to its first completion."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


@record
class Reply:
    """One completion, or the reason why there is none. A failed call is missing data, never a wrong answer."""

    text: str | None
    finish_reason: str | None = None
    """As the endpoint reports it: `stop`, `length` (truncated), `content_filter`, ..."""
    error: str | None = None
    """Why there is no text."""
    usage: Usage = Usage()
    call: str = ""
    """`<request digest>:<index>`, its key in the reply cache; empty for a local rollout."""

    @property
    def ended(self) -> bool:
        """Whether the model finished it. A reply that did not end is no answer, vote or sample."""
        return self.error is None and (self.finish_reason or "stop").lower() in GOOD_ENDS

    @property
    def filtered(self) -> bool:
        """Whether the model refused, or the endpoint's content filter removed the reply."""
        return any(word in (self.finish_reason or "").lower() for word in FILTER_WORDS)

    @property
    def truncated(self) -> bool:
        return was_truncated(self.finish_reason)
