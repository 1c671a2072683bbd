"""The trained model as a Hugging Face folder: the base model's own files, new weights, and a model card."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from dsrl import __version__
from dsrl.data.model import Model
from dsrl.models import huggingface
from dsrl.stages.train.checkpoints import Checkpoint
from dsrl.stages.train.job import MODEL, RESULT, TRAIN, TrainingJob, read_rows

TOKENIZER_FILES = (
    *("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.model", "tekken.json"),
    *("chat_template*", "additional_chat_templates/*"),
)
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
GENERATION_CONFIG = "generation_config.json"
NUM_CHECK_PROMPTS = 4
CARD = "README.md"
HIDDEN_SETTINGS = frozenset(("engine", "format_share"))
"""Settings left out of the card's table: they say where the training ran, or repeat the text."""


def write_model_folder(job: TrainingJob, checkpoint: Checkpoint, train_weights: Callable[[Any], Any]) -> None:
    """Write `model/` and `result.json` in the job's folder, then load the model as later stages will.

    The model keeps the base model's dtype. `train_weights` turns the loaded base model into the trained one. Raises if
    the result can't be loaded.
    """
    folder = job.path(MODEL)
    shutil.rmtree(folder, ignore_errors=True)
    weights = train_weights(huggingface.load_model(job.model))
    use_plain_generation_config(weights)
    weights.save_pretrained(folder)
    copy_base_files(job.model, folder)
    rows = read_rows(job.path(TRAIN))
    tokenizer = huggingface.load_tokenizer(job.model)
    huggingface.write_tokenizer_check(tokenizer, folder, [row.prompt for row in rows[:NUM_CHECK_PROMPTS]])
    (folder / CARD).write_text(model_card(job, checkpoint), encoding="utf-8")
    verify_model(replace(job.model, path=str(folder), revision=None), images=any(row.images for row in rows))
    result = {"step": checkpoint.step, "validation": checkpoint.validation}
    job.path(RESULT).write_text(json.dumps(result), encoding="utf-8")


def use_plain_generation_config(model: Any) -> None:
    """Leave only the special tokens in a model's generation config. Many chat models ship sampling defaults that
    transformers reads but refuses to save (`temperature` without `do_sample`)."""
    own = model.generation_config
    special = {name: getattr(own, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(**special)


def copy_base_files(model: Model, folder: Path) -> None:
    """Copy tokenizer, chat template, processor, generation config and (with `trust_remote_code`) code of the base model
    byte for byte."""
    patterns = [*TOKENIZER_FILES, *PROCESSOR_FILES, GENERATION_CONFIG, *(["*.py"] if model.trust_remote_code else [])]
    source = Path(str(model.path))
    if not source.is_dir():
        from huggingface_hub import snapshot_download

        source = Path(snapshot_download(str(model.path), revision=model.revision, allow_patterns=patterns))
    for path in (path for pattern in patterns for path in source.glob(pattern) if path.is_file()):
        target = folder / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def check_saving(model: Any, job: TrainingJob) -> None:
    """Save everything but the weights, before the training instead of after it. Raises what saving raises."""
    folder = job.path(f".{MODEL}-check")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    copy_base_files(job.model, folder)
    huggingface.load_tokenizer(replace(job.model, path=str(folder), revision=None))
    shutil.rmtree(folder)


def verify_model(model: Model, *, images: bool) -> None:
    """Load a finished folder as any later stage will. Raises FloatingPointError for weights that are not finite."""
    huggingface.load_tokenizer(model)
    if images:
        from dsrl.models import vision

        vision.load_processor(model)
    weights = huggingface.load_model(model)
    broken = [name for name, values in weights.named_parameters() if not torch.isfinite(values).all()]
    if broken:
        raise FloatingPointError(f"weights are not finite: {', '.join(broken[:3])}")


def model_card(job: TrainingJob, checkpoint: Checkpoint) -> str:
    """The README.md of the model: Markdown with the YAML header that model hubs read."""
    score = checkpoint.validation
    chosen = "" if score is None else f", which is right on {score:.1%} of the held-out synthetic samples"
    raw = "plain text" if job.model.prompt_format == "raw" else "one user turn of its chat template"
    rows = "\n".join(f"| `{name}` | {value} |" for name, value in job.settings.items() if name not in HIDDEN_SETTINGS)
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [dsrl, synthetic-data, {job.algorithm}]
---

# {job.model.name} after {job.algorithm}

Trained by dsrl {__version__} on synthetic samples: {job.steps} updates of {job.rows_per_step} samples each. This is the
checkpoint after update {checkpoint.step}{chosen}. The test set was used neither in training nor in this choice.

- Base model: `{job.model.name}`
- Prompt: {raw}
- Grader: `{job.grader["component"]}`, seed {job.seed}

| setting | value |
|---|---|
{rows}
"""  # noqa: S608 - no SQL
