"""Rows as veRL's data set reads them, with prompts that fit and have the same tokens as in every other stage."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dsrl.core.errors import UserError
from dsrl.stages.train.job import TrainingJob, TrainingRow
from dsrl.stages.train.verl.config import SOURCE

TEXT = pa.string()
SCHEMA = pa.schema(
    {
        "data_source": TEXT,
        "prompt": pa.list_(pa.struct({"role": TEXT, "content": TEXT})),
        "ability": TEXT,
        "reward_model": pa.struct({"style": TEXT, "ground_truth": TEXT}),
        "extra_info": pa.struct(
            {
                "index": pa.int64(),
                **dict.fromkeys(("split", "id", "prompt", "origin", "parent", "passage"), TEXT),
                "pass_rate": pa.float64(),
            }
        ),
    }
)
IMAGES = pa.field("images", pa.list_(pa.struct({"bytes": pa.binary()})))
"""veRL replaces the prompt's first `<image>` by the first image, and so on; rows without images keep their text."""
ROWS_IN_MEMORY = 100
"""Rows, with their images, that are held before they are written."""
RAW_TEMPLATES = ("{{ messages[0]['content'] }}", "{{ bos_token }}{{ messages[0]['content'] }}")
"""Chat templates that leave a prompt as plain text, for base models without and with a beginning-of-text token."""


def write_table(path: Path, rows: Iterable[TrainingRow], split: str, images: Path | None = None) -> None:
    """Write one Parquet row per question, with its provenance. `images` is the folder of the image files; without it
    the table has no column for them."""
    schema = SCHEMA.append(IMAGES) if images else SCHEMA
    with pq.ParquetWriter(path, schema) as writer:
        batch: list[dict[str, Any]] = []
        for number, row in enumerate(rows):
            batch.append(verl_row(row, number, split))
            if images:
                batch[-1]["images"] = [{"bytes": (images / name).read_bytes()} for name in row.images]
            if len(batch) == ROWS_IN_MEMORY:
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                batch = []
        writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def verl_row(row: TrainingRow, number: int, split: str) -> dict[str, Any]:
    """All columns but the images."""
    return {
        "data_source": SOURCE,
        "prompt": [{"role": "user", "content": row.prompt}],
        "ability": SOURCE,
        "reward_model": {"style": "rule", "ground_truth": row.answer},
        "extra_info": {
            "index": number,
            "split": split,
            "id": row.id,
            "prompt": row.prompt,
            "origin": row.origin or "",
            "parent": row.parent or "",
            "passage": row.passage or "",
            "pass_rate": row.pass_rate,
        },
    }


def encode_prompts(tokenizer: Any, job: TrainingJob, rows: Iterable[TrainingRow]) -> dict[str, list[int]]:
    """Prompt -> its tokens as in every other stage, for the rows without images."""
    from dsrl.models import huggingface

    prompts = dict.fromkeys(row.prompt for row in rows if not row.images)
    return {prompt: huggingface.encode_prompt(tokenizer, prompt, job.model.prompt_format) for prompt in prompts}


def image_prompt_sizes(job: TrainingJob, rows: Iterable[TrainingRow]) -> dict[str, int]:
    """Row id -> tokens of its prompt, for the rows with images: veRL's own length check ignores the images' tokens.
    Raises `UserError` for a model with raw prompts, which veRL can't combine with images."""
    with_images = [row for row in rows if row.images]
    if not with_images:
        return {}
    if job.model.prompt_format == "raw":
        raise UserError(
            "train=verl supports images only with a chat template",
            got="model.prompt_format=raw",
            next_step="give an instruct model with prompt_format=chat, or train=trl",
        )
    from dsrl.models import vision

    processor = vision.load_processor(job.model)
    shown = {
        row.id: vision.Shown(row.prompt, [str(Path(job.images) / name) for name in row.images]) for row in with_images
    }
    return {identifier: vision.size(processor, prompt, job.model.prompt_format) for identifier, prompt in shown.items()}


def longest_prompt(
    rows: Sequence[TrainingRow],
    encoded: dict[str, list[int]],
    limit: int,
    reply: int,
    with_images: Mapping[str, int] | None = None,
) -> int:
    """Tokens of the longest prompt; `with_images` are the sizes of prompts with images. Raises `UserError` if prompt
    and `reply` tokens exceed the `limit`."""
    sizes = {row.id: len(encoded[row.prompt]) for row in rows if row.prompt in encoded and not row.images}
    sizes |= with_images or {}
    longest = max(rows, key=lambda row: sizes[row.id])
    length = sizes[longest.id]
    if length + reply > limit:
        raise UserError(
            f"sample {longest.id}: question and reply don't fit into the model's context",
            got=f"{length} tokens of the question and rl.max_response_tokens={reply}",
            allowed=f"{limit} together",
            next_step="lower rl.max_response_tokens, raise model.max_length, or remove such long samples",
        )
    return length


def choose_chat_template(tokenizer: Any, job: TrainingJob, encoded: dict[str, list[int]]) -> str | None:
    """The chat template with which veRL's prompts have the tokens in `encoded`; None for the model's own. Raises
    `UserError` if there is none."""
    candidates = RAW_TEMPLATES if job.model.prompt_format == "raw" else (None,)
    if not encoded:
        return candidates[0]

    def render(prompt: str, chat_template: str | None) -> list[int]:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            chat_template=chat_template,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
        )
        return list(ids)

    for candidate in candidates:
        if all(render(prompt, candidate) == ids for prompt, ids in encoded.items()):
            return candidate
    prompt, ids = next(iter(encoded.items()))
    raise UserError(
        "veRL would tokenize the prompts differently from the other stages",
        got=f"{render(prompt, candidates[0])[:12]} for {prompt[:40]!r}",
        allowed=f"{ids[:12]}",
        next_step="check model.prompt_format and the tokenizer's chat template",
    )
