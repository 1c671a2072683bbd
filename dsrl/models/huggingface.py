"""Loading, prompting and sampling of Hugging Face models, shared by pass rates, training and evaluation.

Imports torch and transformers: for child processes only.
"""

import json
import math
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
)

from dsrl.core.errors import UserError
from dsrl.data.model import Model, Sampling, reads_images

DEFAULT_THREADS = torch.get_num_threads()
SMALL_MODEL = 5_000_000
"""Parameters below which matrix products are too small to be split among threads."""
REPLY_MARKER = "reply-marker"
TOKENIZER_CHECK = "tokenizer_check.json"
CHECK_TEXTS = (
    "Hello, world!\n\nShe wrote 1234567890 words in 98 days.",
    "3+4=7, 7+4=11 #### 11",
    "na\u00efve caf\u00e9 \u2212 \u6771\u4eac \U0001f642\t<answer>(B)</answer> \\frac{1}{2}",
)
"""Digits, punctuation, scripts and spacing, on which different tokenizers differ."""


@dataclass(frozen=True)
class Ask:
    """A request for one completion."""

    ids: list[int]
    """The prompt's tokens."""
    stream: str
    """Seed of this completion's random numbers."""
    limit: int
    """Longest completion, in tokens."""


@dataclass(frozen=True)
class Drawn:
    """One sampled completion."""

    ids: list[int]
    """Token ids, with the stop token unless truncated."""
    finish_reason: str
    """`stop`, or `length` if truncated."""


def load_tokenizer(model: Model) -> Any:
    """The tokenizer, padding on the left. Raises `UserError` if it is not the one that the model was saved with."""
    assert model.path is not None
    tokenizer = AutoTokenizer.from_pretrained(
        model.path, revision=model.revision, trust_remote_code=model.trust_remote_code, padding_side="left"
    )
    verify_tokenizer(tokenizer, Path(model.path))
    return tokenizer


def load_model(model: Model, device: str = "cpu", dtype: str | None = None) -> Any:
    """The weights in `dtype` (default: the model's own), ready for inference."""
    assert model.path is not None
    options = {"revision": model.revision, "trust_remote_code": model.trust_remote_code}
    config = AutoConfig.from_pretrained(model.path, **options)
    auto = AutoModelForImageTextToText if reads_images(config.to_dict()) else AutoModelForCausalLM
    weights = auto.from_pretrained(model.path, dtype=dtype or model.dtype, **options)
    set_threads(weights)
    return weights.to(device).eval()


def set_threads(weights: Any) -> None:
    """Use one CPU thread for a model of a few million parameters, which more threads would slow down, else one per
    core. OMP_NUM_THREADS takes precedence."""
    if "OMP_NUM_THREADS" not in os.environ:
        small = weights.num_parameters() < SMALL_MODEL
        torch.set_num_threads(1 if small else DEFAULT_THREADS)


def pick_device(wanted: str = "auto") -> str:
    """`auto` picks the GPU if there is one. Raises `UserError` for `cuda` without a usable GPU."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("device: no usable GPU on this machine", got=wanted, allowed=("auto", "cpu"))
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def encode_prompt(tokenizer: Any, prompt: str, prompt_format: str) -> list[int]:
    """Token ids of a prompt: plain text, or one user turn of the chat template."""
    if prompt_format == "raw":
        return list(tokenizer(prompt)["input_ids"])
    if not tokenizer.chat_template:
        raise UserError(
            "the model's tokenizer has no chat template", next_step="give model.prompt_format=raw, or an instruct model"
        )
    turns = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def write_tokenizer_check(tokenizer: Any, folder: Path, texts: Sequence[str] = ()) -> None:
    """Write some texts with their token ids beside a saved tokenizer, for `verify_tokenizer`."""
    expected = {text: tokenizer(text)["input_ids"] for text in (*CHECK_TEXTS, *texts)}
    (folder / TOKENIZER_CHECK).write_text(json.dumps(expected, ensure_ascii=False), encoding="utf-8")


def verify_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Raises `UserError` if the loaded tokenizer splits texts differently from the saved one. For some model types
    transformers silently loads its own tokenizer instead of the saved one."""
    path = folder / TOKENIZER_CHECK
    if not path.is_file():
        return
    for text, expected in json.loads(path.read_text(encoding="utf-8")).items():
        got = list(tokenizer(text)["input_ids"])
        if got != expected:
            raise UserError(
                f"{folder}: the loaded tokenizer is not the saved one",
                got=f"{type(tokenizer).__name__} encodes {text[:40]!r} as {got[:12]}",
                allowed=f"{expected[:12]}",
                next_step="check model_type in config.json and tokenizer_class in tokenizer_config.json",
            )


def stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """Token ids that end a reply: the tokenizer's own and those of the model's generation config."""
    declared = model.generation_config.eos_token_id
    candidates = (tokenizer.eos_token_id, *(declared if isinstance(declared, list) else [declared]))
    ids = [token for token in candidates if token is not None]
    if not ids:
        raise UserError("the model declares no end-of-text token", next_step="set eos_token in tokenizer_config.json")
    return list(dict.fromkeys(ids))


def end_of_reply_ids(tokenizer: Any, prompt_format: str, stops: Sequence[int]) -> list[int]:
    """Token ids that end a reply in training data, the last of them one of `stops` (see `stop_ids`): what the chat
    template renders after an assistant turn, or the end-of-text token for raw prompts. The end-of-text token of
    the tokenizer need not be the template's end of turn (Gemma, Phi, Llama 3)."""
    if prompt_format == "raw":
        return [stops[0]]
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": REPLY_MARKER}]
    _, _, end = tokenizer.apply_chat_template(turns, tokenize=False).rpartition(REPLY_MARKER)
    ids = list(tokenizer(end, add_special_tokens=False)["input_ids"])
    for length, token in enumerate(ids, 1):
        if token in stops:
            return ids[:length]
    return [*tokenizer(end.strip(), add_special_tokens=False)["input_ids"], stops[0]]


def declare_end_of_text(tokenizer: Any, stops: Sequence[int]) -> None:
    """Give a loaded tokenizer an end-of-text and a padding token, if it has none: trainers need both."""
    first = tokenizer.convert_ids_to_tokens(stops[0])
    tokenizer.eos_token = tokenizer.eos_token or first
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token


def context_length(model: Model, weights: Any) -> int:
    """Longest prompt plus reply in tokens: the configured limit, or the model's own if that is shorter."""
    return context_limit(model, weights.config)


def context_limit(model: Model, config: Any) -> int:
    """`context_length` from the model's Hugging Face config alone."""
    own = getattr(config.get_text_config(), "max_position_embeddings", None)
    return min(model.max_length, own or model.max_length)


def draw(model: Any, tokenizer: Any, asks: Sequence[Ask], sampling: Sampling) -> list[Drawn]:
    """One completion per request, in one batch. Each is sampled by inverse CDF from random numbers of its own, so its
    neighbours affect it only through rounding. Raises FloatingPointError if the model's output is not finite."""
    padding = stop_ids(model, tokenizer)[0]
    width = max(len(ask.ids) for ask in asks)
    inputs = {
        "input_ids": torch.tensor([[padding] * (width - len(ask.ids)) + ask.ids for ask in asks]),
        "attention_mask": torch.tensor([[0] * (width - len(ask.ids)) + [1] * len(ask.ids) for ask in asks]),
    }
    return draw_from(model, tokenizer, inputs, [ask.stream for ask in asks], [ask.limit for ask in asks], sampling)


@torch.no_grad()
def draw_from(
    model: Any,
    tokenizer: Any,
    inputs: Mapping[str, torch.Tensor],
    streams: Sequence[str],
    limits: Sequence[int],
    sampling: Sampling,
) -> list[Drawn]:
    """`draw` for prompts that are already tensors of shape (batch, seq), padded on the left, possibly with images."""
    stops, longest = stop_ids(model, tokenizer), max(limits)
    image_token = getattr(model.config, "image_token_id", None)
    config = GenerationConfig(
        max_new_tokens=longest,
        do_sample=False,
        eos_token_id=stops,
        pad_token_id=stops[0],
        # The model could not read a reply back that has an image token without an image.
        suppress_tokens=None if image_token is None else [image_token],
    )
    with replaced_generation_config(model, config):
        rows = model.generate(
            **{name: tensor.to(model.device) for name, tensor in inputs.items()},
            logits_processor=LogitsProcessorList([InverseCdf(streams, longest, sampling)]),
        )
    replies = rows[:, inputs["input_ids"].shape[1] :].tolist()
    return [truncate(reply[:limit], stops) for reply, limit in zip(replies, limits, strict=True)]


class InverseCdf(LogitsProcessor):  # type: ignore[misc]
    """Masks all but one token per row: the one on which the row's uniform number of this step falls. At temperature 0
    it leaves the scores alone, for greedy decoding."""

    def __init__(self, streams: Sequence[str], steps: int, sampling: Sampling) -> None:
        self.sampling = sampling
        sources = [random.Random(stream) for stream in streams]
        numbers = [[source.random() for _ in range(steps)] for source in sources] if sampling.temperature else []
        self.uniforms = torch.tensor(numbers, dtype=torch.float64)
        self.step = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # noqa: ARG002 - the base class's
        if not torch.isfinite(scores.amax(dim=-1)).all():
            raise FloatingPointError("the model's output is not finite")
        if self.sampling.temperature == 0:
            return scores
        picked = self._pick(scores, self.uniforms[:, self.step].to(scores.device))
        self.step += 1
        return torch.full_like(scores, -math.inf).scatter_(1, picked, 0.0)

    def _pick(self, scores: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
        """Token ids of shape (batch, 1), from scores of shape (batch, vocab) and uniforms of shape (batch,)."""
        probabilities = torch.softmax(scores.float() / self.sampling.temperature, dim=-1)
        if self.sampling.top_p == 1:
            return inverse_cdf(probabilities, uniforms)
        ordered, tokens = torch.sort(probabilities, dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered
        return tokens.gather(1, inverse_cdf(ordered.masked_fill(before >= self.sampling.top_p, 0.0), uniforms))


def inverse_cdf(probabilities: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """The column on which each uniform number falls, shape (batch, 1). A column of probability 0 is never hit."""
    sums = probabilities.cumsum(dim=-1, dtype=torch.float64)
    return torch.searchsorted(sums, uniforms[:, None] * sums[:, -1:], right=True).clamp_(max=sums.shape[-1] - 1)


def truncate(ids: list[int], stops: Sequence[int]) -> Drawn:
    """The completion up to its first stop token; what follows is padding."""
    ends = [position for position, token in enumerate(ids) if token in stops]
    return Drawn(ids[: ends[0] + 1], "stop") if ends else Drawn(ids, "length")


@contextmanager
def replaced_generation_config(model: Any, config: GenerationConfig) -> Iterator[None]:
    """Keeps a model's own defaults (repetition penalty, top_k, ...) out of the sampling."""
    own = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = own
