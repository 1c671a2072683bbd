"""Hugging Face models, loaded, spoken to and sampled in one way by pass rates, training and evaluation.

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
"""Parameters below which matrix products are too small to share among threads."""
TOKENIZER_CHECK = "tokenizer_check.json"
CHECK_TEXTS = (
    "Hello, world!\n\nShe wrote 1234567890 words in 98 days.",
    "3+4=7, 7+4=11 #### 11",
    "na\u00efve caf\u00e9 \u2212 \u6771\u4eac \U0001f642\t<answer>(B)</answer> \\frac{1}{2}",
)
"""Digits, marks, scripts and spacing: where tokenizers of different make part company."""


@dataclass(frozen=True)
class Ask:
    """One completion to be sampled."""

    ids: list[int]
    """The prompt's tokens."""
    stream: str
    """Seeds the random numbers of this completion."""
    limit: int
    """Longest completion, in tokens."""


@dataclass(frozen=True)
class Drawn:
    """One sampled completion."""

    ids: list[int]
    """Ends with the stop token, unless it was cut."""
    finish_reason: str
    """`stop`, or `length` where it was cut."""


def load_tokenizer(model: Model) -> Any:
    """The tokenizer, padding on the left. Raises `UserError` where it isn't the one that the model was saved with."""
    assert model.path is not None
    tokenizer = AutoTokenizer.from_pretrained(
        model.path, revision=model.revision, trust_remote_code=model.trust_remote_code, padding_side="left"
    )
    verify_tokenizer(tokenizer, Path(model.path))
    return tokenizer


def load_model(model: Model, device: str = "cpu", dtype: str | None = None) -> Any:
    """The weights in `dtype` (the model's own if not given), ready for inference."""
    assert model.path is not None
    given = {"revision": model.revision, "trust_remote_code": model.trust_remote_code}
    config = AutoConfig.from_pretrained(model.path, **given)
    auto = AutoModelForImageTextToText if reads_images(config.to_dict()) else AutoModelForCausalLM
    weights = auto.from_pretrained(model.path, dtype=dtype or model.dtype, **given)
    settle_threads(weights)
    return weights.to(device).eval()


def settle_threads(weights: Any) -> None:
    """One CPU thread for a model of a few million parameters, where a second costs more than it brings; else one a
    core. Keeps a number that was given in the environment."""
    if "OMP_NUM_THREADS" not in os.environ:
        small = weights.num_parameters() < SMALL_MODEL
        torch.set_num_threads(1 if small else DEFAULT_THREADS)


def pick_device(wanted: str = "auto") -> str:
    """`auto`: the GPU where there is one. Raises `UserError` for a GPU that isn't there."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("device: no GPU can be used here", got=wanted, allowed=("auto", "cpu"))
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def encode_prompt(tokenizer: Any, prompt: str, prompt_format: str) -> list[int]:
    """The token ids with which a model is asked: plain text, or one user turn of its chat template."""
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
    """Note beside a saved tokenizer how it cuts some texts, for `verify_tokenizer`."""
    expected = {text: tokenizer(text)["input_ids"] for text in (*CHECK_TEXTS, *texts)}
    (folder / TOKENIZER_CHECK).write_text(json.dumps(expected, ensure_ascii=False), encoding="utf-8")


def verify_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Raises `UserError` where a loaded tokenizer cuts texts differently than the one that was saved (transformers
    puts its own in the place of a saved one for some model types, without a word)."""
    path = folder / TOKENIZER_CHECK
    if not path.is_file():
        return
    for text, expected in json.loads(path.read_text(encoding="utf-8")).items():
        got = list(tokenizer(text)["input_ids"])
        if got != expected:
            raise UserError(
                f"{folder}: another tokenizer was loaded than the one that was saved",
                got=f"{type(tokenizer).__name__} reads {text[:40]!r} as {got[:12]}",
                allowed=f"{expected[:12]}",
                next_step="check model_type in config.json and tokenizer_class in tokenizer_config.json",
            )


def stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """Every token that ends a reply: the tokenizer's own and those of the model's generation config."""
    declared = model.generation_config.eos_token_id
    several = declared if isinstance(declared, list) else [declared]
    found = [token for token in (tokenizer.eos_token_id, *several) if token is not None]
    if not found:
        raise UserError("the model declares no end-of-text token", next_step="set eos_token in tokenizer_config.json")
    return list(dict.fromkeys(found))


def picture_tokens(model: Any) -> list[int] | None:
    """What stands for a piece of a picture: a reply that held it could not be read back; None where there is none."""
    token = getattr(model.config, "image_token_id", None)
    return None if token is None else [token]


def context_length(model: Model, weights: Any) -> int:
    """Longest prompt plus reply: the configured one, or the model's own where that is shorter."""
    return context_limit(model, weights.config)


def context_limit(model: Model, config: Any) -> int:
    """The same of a model's configuration alone."""
    own = getattr(config.get_text_config(), "max_position_embeddings", None)
    return min(model.max_length, own or model.max_length)


def draw(model: Any, tokenizer: Any, asks: Sequence[Ask], sampling: Sampling) -> list[Drawn]:
    """One completion to each, in one batch: by inverse CDF from numbers of its own, so that it depends on its
    neighbours only through rounding. Raises FloatingPointError where the model's output isn't finite.
    """
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
    """As `draw`, of prompts that are tensors already, padded on the left, with pictures among them."""
    stops, longest = stop_ids(model, tokenizer), max(limits)
    config = GenerationConfig(
        max_new_tokens=longest, do_sample=False, eos_token_id=stops, pad_token_id=stops[0],
        suppress_tokens=picture_tokens(model),
    )  # fmt: skip
    with _generation_config(model, config):
        rows = model.generate(
            **{name: tensor.to(model.device) for name, tensor in inputs.items()},
            logits_processor=LogitsProcessorList([InverseCdf(streams, longest, sampling)]),
        )
    replies = rows[:, inputs["input_ids"].shape[1] :].tolist()
    return [_cut(reply[:limit], stops) for reply, limit in zip(replies, limits, strict=True)]


class InverseCdf(LogitsProcessor):  # type: ignore[misc]
    """Leaves one token a row: where the row's uniform number of this step falls; at temperature 0 the likeliest."""

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
        """Token ids of shape (rows, 1)."""
        shares = torch.softmax(scores.float() / self.sampling.temperature, dim=-1)
        if self.sampling.top_p == 1:
            return _inverse(shares, uniforms)
        ordered, tokens = torch.sort(shares, dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered
        return tokens.gather(1, _inverse(ordered.masked_fill(before >= self.sampling.top_p, 0.0), uniforms))


def _inverse(shares: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Column on which each uniform number falls; a column of share 0 is never hit."""
    sums = shares.cumsum(dim=-1, dtype=torch.float64)
    return torch.searchsorted(sums, uniforms[:, None] * sums[:, -1:], right=True).clamp_(max=shares.shape[-1] - 1)


def _cut(ids: list[int], stops: Sequence[int]) -> Drawn:
    """What comes after the first stop token is padding."""
    ends = [position for position, token in enumerate(ids) if token in stops]
    return Drawn(ids[: ends[0] + 1], "stop") if ends else Drawn(ids, "length")


@contextmanager
def _generation_config(model: Any, config: GenerationConfig) -> Iterator[None]:
    """Keep a model's own defaults (a repetition penalty, a top_k) out of the sampling."""
    own = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = own
