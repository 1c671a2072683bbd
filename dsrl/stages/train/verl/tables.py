"""Prompts that are sure to fit, and to be asked by veRL as everywhere else."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dsrl.core.errors import UserError
from dsrl.models import huggingface, vision
from dsrl.stages.train.job import Job, Row

RAW_TEMPLATES = ("{{ messages[0]['content'] }}", "{{ bos_token }}{{ messages[0]['content'] }}")
"""Chat templates that add nothing to a prompt: for base models, with and without the token that begins a text."""


def longest(
    rows: Sequence[Row], encoded: dict[str, list[int]], limit: int, reply: int, shown: Mapping[str, int] | None = None
) -> int:
    """Tokens of the longest prompt; `shown`: of those with pictures, by row. Raises `UserError` where it leaves less
    room than a reply may take."""
    sizes = {row.id: len(encoded[row.prompt]) for row in rows if row.prompt in encoded and not row.images}
    sizes |= shown or {}
    worst = max(rows, key=lambda row: sizes[row.id])
    length = sizes[worst.id]
    if length + reply > limit:
        raise UserError(
            f"sample {worst.id}: question and reply don't fit into the model's context",
            got=f"{length} tokens of the question and rl.max_response_tokens={reply}",
            allowed=f"{limit} together",
            next_step="lower rl.max_response_tokens, raise model.max_length, or take out such long samples",
        )
    return length


def template(tokenizer: Any, job: Job, encoded: dict[str, list[int]]) -> str | None:
    """The chat template under which veRL asks exactly as every other stage does; None: the model's own. Raises
    `UserError` where there is none."""
    candidates = RAW_TEMPLATES if job.model.prompt_format == "raw" else (None,)
    if not encoded:
        return candidates[0]
    for candidate in candidates:
        if all(_asked(tokenizer, prompt, candidate) == ids for prompt, ids in encoded.items()):
            return candidate
    prompt, ids = next(iter(encoded.items()))
    raise UserError(
        "veRL would ask with other tokens than the stages before",
        got=f"{_asked(tokenizer, prompt, candidates[0])[:12]} for {prompt[:40]!r}",
        allowed=f"{ids[:12]}",
        next_step="check model.prompt_format and the tokenizer's chat template",
    )


def _asked(tokenizer: Any, prompt: str, chat_template: str | None) -> list[int]:
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        chat_template=chat_template,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,
    )
    return list(ids)


def encode(tokenizer: Any, job: Job, rows: Iterable[Row]) -> dict[str, list[int]]:
    """Prompt -> its tokens, as in every other stage; without those that have pictures."""
    prompts = dict.fromkeys(row.prompt for row in rows if not row.images)
    return {prompt: huggingface.encode_prompt(tokenizer, prompt, job.model.prompt_format) for prompt in prompts}


def shown_sizes(job: Job, rows: Iterable[Row]) -> dict[str, int]:
    """Tokens of each prompt with pictures, by row: veRL's own look at lengths leaves pictures out. Raises `UserError`
    for a model that is asked in plain text, which veRL can't do with pictures."""
    pictured = [row for row in rows if row.images]
    if not pictured:
        return {}
    if job.model.prompt_format == "raw":
        raise UserError(
            "train=verl shows pictures in chat turns only",
            got="model.prompt_format=raw",
            next_step="give an instruct model with prompt_format=chat, or train=trl",
        )
    processor = vision.load_processor(job.model)
    return {row.id: vision.size(processor, _shown(row, job.images), job.model.prompt_format) for row in pictured}


def _shown(row: Row, folder: str) -> vision.Shown:
    return vision.Shown(row.prompt, [str(Path(folder) / name) for name in row.images])
