"""Shared by the training children based on transformers: loading, sampling, metrics, checkpoints, export."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback

from dsrl.core import child_process
from dsrl.core.digest import digest
from dsrl.core.errors import UserError
from dsrl.core.files import append_json_line
from dsrl.data.model import Sampling, reads_images
from dsrl.graders import Grader
from dsrl.graders.rebuild import rebuild
from dsrl.models import huggingface
from dsrl.stages.train.checkpoints import Checkpoint, choose_checkpoint, mark_complete, prune
from dsrl.stages.train.job import (
    CHECKPOINTS,
    PROGRESS,
    TRAIN,
    VALIDATION,
    TrainingJob,
    TrainingRow,
    read_job,
    read_rows,
)
from dsrl.stages.train.model_folder import check_saving, use_plain_generation_config, write_model_folder
from dsrl.stages.train.rows import device_batch_size, training_order

DEFAULT_DEVICE_BATCH = 256
"""Replies drawn at a time in a validation, unless `device_batch` is set."""
METRICS = {
    "reward": "reward",
    "correct": "correct",
    "format_ok": "format_ok",
    "loss": "loss",
    "kl": "kl",
    "entropy": "entropy",
    "completion_length": "completions/mean_length",
    "truncated": "completions/clipped_ratio",
    "zero_variance": "frac_reward_zero_std",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
}
"""Name in `progress.jsonl` -> the trainer's name."""


Prompt = tuple[str, Sequence[Any]]
"""A text, and its images or their paths."""
Completion = tuple[list[int], huggingface.Drawn]
"""A prompt's tokens and the reply to it."""


@dataclass
class TrainingRun:
    """A model in training, with its job and data."""

    job: TrainingJob
    model: Any
    tokenizer: Any
    grader: Grader
    rows: tuple[TrainingRow, ...]
    held_out: tuple[TrainingRow, ...]
    stops: list[int]
    """Token ids that end a reply."""
    limit: int
    """Longest prompt plus reply, in tokens."""

    @property
    def order(self) -> tuple[int, ...]:
        """Row numbers of all updates, one after another."""
        return training_order(len(self.rows), self.job.steps * self.job.rows_per_step, self.job.seed)

    @cached_property
    def has_images(self) -> bool:
        return any(row.images for row in (*self.rows, *self.held_out))

    @cached_property
    def processor(self) -> Any:
        from dsrl.models import vision  # for models with images only

        processor = vision.load_processor(self.job.model)
        huggingface.declare_end_of_text(processor.tokenizer, self.stops)
        return processor

    def image_paths(self, row: TrainingRow) -> list[str]:
        return [str(Path(self.job.images) / name) for name in row.images]

    def encode(self, prompt: str) -> list[int]:
        """The prompt's tokens, as in every other stage. Raises `UserError` if there is no room for a reply."""
        ids = huggingface.encode_prompt(self.tokenizer, prompt, self.job.model.prompt_format)
        self._check_room(len(ids))
        return ids

    def _check_room(self, num_tokens: int) -> None:
        if num_tokens >= self.limit:
            raise UserError(
                "a prompt leaves no room for a reply", got=f"{num_tokens} tokens", allowed=f"less than {self.limit}"
            )

    def replies(self, prompts: Sequence[Prompt], streams: Sequence[str], sampling: Sampling) -> list[Completion]:
        """One reply to each prompt by the current model, in batches of `device_batch`. `streams` seed the replies."""
        size = self.job.device_batch or DEFAULT_DEVICE_BATCH
        was_training = self.model.training
        self.model.eval()
        completions: list[Completion] = []
        for start in range(0, len(prompts), size):
            batch = slice(start, start + size)
            completions += self._sample(prompts[batch], streams[batch], sampling)
        self.model.train(was_training)
        return completions

    def _sample(self, prompts: Sequence[Prompt], streams: Sequence[str], sampling: Sampling) -> list[Completion]:
        prompt_format, inputs = self.job.model.prompt_format, None
        if any(images for _, images in prompts):
            from dsrl.models import vision

            inputs = vision.encode(self.processor, [vision.Shown(*prompt) for prompt in prompts], prompt_format)
            ids = vision.prompt_ids(inputs)
        else:
            ids = [huggingface.encode_prompt(self.tokenizer, text, prompt_format) for text, _ in prompts]
        self._check_room(max(map(len, ids)))
        limits = [min(sampling.max_tokens, self.limit - len(prompt)) for prompt in ids]
        if inputs is None:
            asks = [huggingface.Ask(*ask) for ask in zip(ids, streams, limits, strict=True)]
            drawn = huggingface.draw(self.model, self.tokenizer, asks, sampling)
        else:
            drawn = huggingface.draw_from(self.model, self.tokenizer, inputs, streams, limits, sampling)
        return list(zip(ids, drawn, strict=True))

    def validate(self) -> float | None:
        """Share of correct replies to the held-out samples; None if there are none. All checkpoints get the same random
        numbers, so that they differ by their weights alone."""
        pairs = [(row, number) for row in self.held_out for number in range(self.job.validation_replies)]
        if not pairs:
            return None
        prompts = [(row.prompt, self.image_paths(row)) for row, _ in pairs]
        streams = [digest([self.job.seed, "validation", row.id, number], 32) for row, number in pairs]
        completions = self.replies(prompts, streams, self.job.validation)
        correct = 0
        for (row, _), (_, reply) in zip(pairs, completions, strict=True):
            text = self.tokenizer.decode(reply.ids, skip_special_tokens=True)
            correct += self.grader.for_question(row.prompt).grade(text, row.answer).correct
        return correct / len(pairs)


def load_run(job: TrainingJob) -> TrainingRun:
    """Load the model with float32 weights, which small updates need; a GPU computes in bfloat16 nevertheless."""
    model = huggingface.load_model(job.model, huggingface.pick_device(), "float32")
    if job.resume and not job.settings.get("lora_rank") and reads_images(model.config.to_dict()):
        load_checkpoint_weights(model, job.resume)
    use_plain_generation_config(model)
    check_saving(model, job)
    tokenizer = huggingface.load_tokenizer(job.model)
    stops = huggingface.stop_ids(model, tokenizer)
    huggingface.declare_end_of_text(tokenizer, stops)
    return TrainingRun(
        job=job,
        model=model,
        tokenizer=tokenizer,
        grader=rebuild(job.grader),
        rows=read_rows(job.path(TRAIN)),
        held_out=read_rows(job.path(VALIDATION)),
        stops=stops,
        limit=huggingface.context_length(job.model, model),
    )


def load_checkpoint_weights(model: Any, checkpoint: str) -> None:
    """Load the weights of a full checkpoint into a vision-language model. The Trainer loads them by the names in the
    file; if the model uses other names, it silently continues with the weights it has."""
    saved = type(model).from_pretrained(checkpoint, config=model.config, dtype=torch.float32)
    model.load_state_dict(saved.state_dict())


def trainer_arguments(job: TrainingJob, per_step: int) -> dict[str, Any]:
    """The `TrainingArguments` that all algorithms share, with `per_step` sequences in an update."""
    on_gpu = torch.cuda.is_available()
    size = device_batch_size(job.device_batch, per_step)
    return {
        "output_dir": str(job.path(CHECKPOINTS)),
        "use_cpu": not on_gpu,
        "bf16": on_gpu and torch.cuda.is_bf16_supported(),
        "gradient_checkpointing": on_gpu,
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": per_step // size,
        "max_steps": job.steps,
        "learning_rate": job.settings["learning_rate"],
        "weight_decay": job.settings["weight_decay"],
        "max_grad_norm": job.settings["max_grad_norm"],
        "warmup_steps": job.settings["warmup_steps"],
        "seed": job.seed,
        "save_strategy": "steps",
        "save_steps": job.checkpoint_every,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "remove_unused_columns": False,
    }


class MetricsCallback(TrainerCallback):  # type: ignore[misc]
    """Writes one line of `progress.jsonl` per step. Raises FloatingPointError for a metric that is not finite."""

    def __init__(self, job: TrainingJob) -> None:
        self.path = job.path(PROGRESS)
        self.started = time.monotonic()

    def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, Any], **_others: Any) -> None:
        if "loss" not in logs:
            return
        row = {name: logs[theirs] for name, theirs in METRICS.items() if logs.get(theirs) is not None}
        broken = [name for name, value in row.items() if not math.isfinite(value)]
        if broken:
            raise FloatingPointError(f"step {state.global_step}: {', '.join(broken)} is not finite")
        memory = {}
        if torch.cuda.is_available():
            memory["gpu_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 3)
        seconds = round(time.monotonic() - self.started, 3)
        append_json_line(self.path, {"step": state.global_step, **row, **memory, "seconds": seconds})
        self.started = time.monotonic()


class CheckpointCallback(TrainerCallback):  # type: ignore[misc]
    """Validates before the first step and at each checkpoint, marks the checkpoint complete and prunes older ones."""

    def __init__(self, run: TrainingRun) -> None:
        self.run = run

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_others: Any) -> None:
        if state.global_step == 0:
            append_json_line(self.run.job.path(PROGRESS), {"step": 0, "validation": self.run.validate()})

    def on_save(self, _args: Any, state: Any, _control: Any, **_others: Any) -> None:
        job, step = self.run.job, state.global_step
        validation = self.run.validate()
        append_json_line(job.path(PROGRESS), {"step": step, "validation": validation})
        folder = job.path(CHECKPOINTS)
        mark_complete(folder / f"checkpoint-{step}", step, validation)
        prune(folder, job.keep)


def fit(trainer: Any, run: TrainingRun) -> None:
    """Train to the end, from the checkpoint of a killed training if there is one."""
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(MetricsCallback(run.job))
    trainer.add_callback(CheckpointCallback(run))
    resume = run.job.resume
    if resume is None or choose_checkpoint(Path(resume).parent, "last").step < run.job.steps:
        trainer.train(resume_from_checkpoint=resume)


def export(job: TrainingJob) -> None:
    """Write the chosen checkpoint as the trained model."""
    best = choose_checkpoint(job.path(CHECKPOINTS), job.keep)
    load = _merge_adapters if job.settings.get("lora_rank") else _load_checkpoint
    write_model_folder(job, best, lambda base: load(job, best, base))


def _load_checkpoint(job: TrainingJob, best: Checkpoint, base: Any) -> Any:
    trust = job.model.trust_remote_code
    return type(base).from_pretrained(best.folder, config=base.config, dtype=base.dtype, trust_remote_code=trust)


def _merge_adapters(job: TrainingJob, best: Checkpoint, base: Any) -> Any:
    """Add the adapters to the base weights in float32, then convert to the base model's dtype."""
    from peft import PeftModel

    full = huggingface.load_model(job.model, "cpu", "float32")
    return PeftModel.from_pretrained(full, best.folder).merge_and_unload().to(base.dtype)


def main(train: Callable[[TrainingRun], None]) -> None:
    """Run the training job whose file is the first argument."""
    child_process.end_with_parent(sys.stdin)
    job = read_job(Path(sys.argv[1]))
    try:
        train(load_run(job))
        export(job)
    except Exception as error:
        job.report_failure(describe_error(error), replace=True)
        raise


def describe_error(error: Exception) -> str:
    """Why the training failed, for the user."""
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory: give a smaller train.device_batch"
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
