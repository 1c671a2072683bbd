"""What the training children share: loading, the journal, checkpoints with their validation, the finished folder."""

import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PrinterCallback, TrainerCallback

from dsrl import child, hf
from dsrl.digest import digest
from dsrl.errors import UserError
from dsrl.grade import Grader
from dsrl.model import Model, Sampling
from dsrl.train import checkpoints
from dsrl.train.card import card
from dsrl.train.job import (
    CHECKPOINTS,
    FAILURE,
    MODEL,
    PROGRESS,
    RESULT,
    TRAIN,
    VALIDATION,
    Job,
    Row,
    read_job,
    read_rows,
)
from dsrl.train.rebuild import rebuild
from dsrl.train.schedule import device_batch, order

DEVICE_BATCH = 256
"""Replies drawn at a time for a validation, where nothing else is said."""
NUM_CHECK_PROMPTS = 4
CARD = "README.md"
JOURNAL = {
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
"""Our word in `progress.jsonl` -> the trainer's."""


@dataclass
class Trainee:
    """A model in training and all that belongs to it."""

    job: Job
    model: Any
    tokenizer: Any
    grader: Grader
    rows: tuple[Row, ...]
    held_out: tuple[Row, ...]
    limit: int
    """Longest prompt plus reply, in tokens."""

    @property
    def order(self) -> tuple[int, ...]:
        """Row numbers as they are trained on, batch after batch."""
        return order(len(self.rows), self.job.steps * self.job.rows_per_step, self.job.seed)

    def encode(self, prompt: str) -> list[int]:
        """The prompt's tokens, as in every other stage. Raises `UserError` where they leave no room for a reply."""
        ids = hf.encode_prompt(self.tokenizer, prompt, self.job.model.prompt_format)
        if len(ids) >= self.limit:
            raise UserError(
                "a prompt leaves no room for a reply", got=f"{len(ids)} tokens", allowed=f"less than {self.limit}"
            )
        return ids

    def draw(self, asks: Sequence[hf.Ask], sampling: Sampling) -> list[hf.Drawn]:
        """Completions of the model as it is now."""
        size = self.job.device_batch or DEVICE_BATCH
        was_training = self.model.training
        self.model.eval()
        parts = [asks[start : start + size] for start in range(0, len(asks), size)]
        drawn = [reply for part in parts for reply in hf.draw(self.model, self.tokenizer, part, sampling)]
        self.model.train(was_training)
        return drawn

    def validate(self) -> float | None:
        """Share of right replies to the held-out samples. The same random numbers each time, so that checkpoints
        differ by their weights alone."""
        sampling = self.job.validation
        pairs = [(row, number) for row in self.held_out for number in range(self.job.validation_replies)]
        if not pairs:
            return None
        prompts = {row.id: self.encode(row.prompt) for row in self.held_out}
        limits = {key: min(sampling.max_tokens, self.limit - len(ids)) for key, ids in prompts.items()}
        streams = [digest([self.job.seed, "validation", row.id, number], 32) for row, number in pairs]
        asks = [
            hf.Ask(prompts[row.id], stream, limits[row.id]) for (row, _), stream in zip(pairs, streams, strict=True)
        ]
        texts = [self.tokenizer.decode(drawn.ids, skip_special_tokens=True) for drawn in self.draw(asks, sampling)]
        grades = [
            self.grader.given(row.prompt).grade(text, row.answer) for text, (row, _) in zip(texts, pairs, strict=True)
        ]
        return sum(grade.correct for grade in grades) / len(grades)


def load(job: Job) -> Trainee:
    """Weights in float32, which small updates need; a GPU computes in bfloat16 all the same."""
    model = hf.load_model(job.model, hf.pick_device(), "float32")
    return Trainee(
        job=job,
        model=model,
        tokenizer=hf.load_tokenizer(job.model),
        grader=rebuild(job.grader),
        rows=read_rows(job.path(TRAIN)),
        held_out=read_rows(job.path(VALIDATION)),
        limit=hf.context_length(job.model, model),
    )


def arguments(job: Job, per_step: int) -> dict[str, Any]:
    """The trainer settings that all algorithms share; `per_step` rows make an update."""
    on_gpu = torch.cuda.is_available()
    size = device_batch(job.device_batch, per_step)
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


class Journal(TrainerCallback):  # type: ignore[misc]
    """Writes a line a step; a loss that is no number ends the training."""

    def __init__(self, job: Job) -> None:
        self.path = job.path(PROGRESS)
        self.started = time.monotonic()

    def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, Any], **_others: Any) -> None:
        if "loss" not in logs:
            return
        row = {ours: logs[theirs] for ours, theirs in JOURNAL.items() if logs.get(theirs) is not None}
        broken = [name for name, value in row.items() if not math.isfinite(value)]
        if broken:
            raise FloatingPointError(f"step {state.global_step}: {', '.join(broken)} is no finite number")
        seconds = round(time.monotonic() - self.started, 3)
        self.write({"step": state.global_step, **row, **gpu_memory(), "seconds": seconds})
        self.started = time.monotonic()

    def write(self, row: dict[str, Any]) -> None:
        """One line, at once."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def gpu_memory() -> dict[str, float]:
    """The most that tensors took of the GPU so far, in GiB."""
    if not torch.cuda.is_available():
        return {}
    return {"gpu_gib": round(torch.cuda.max_memory_allocated() / 2**30, 3)}


class Keeper(TrainerCallback):  # type: ignore[misc]
    """Validates before the first step and at each checkpoint, marks the checkpoint whole and removes useless ones."""

    def __init__(self, trainee: Trainee, journal: Journal) -> None:
        self.trainee = trainee
        self.journal = journal

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_others: Any) -> None:
        if state.global_step == 0:
            self.journal.write({"step": 0, "validation": self.trainee.validate()})

    def on_save(self, _args: Any, state: Any, _control: Any, **_others: Any) -> None:
        job, step = self.trainee.job, state.global_step
        validation = self.trainee.validate()
        self.journal.write({"step": step, "validation": validation})
        places = job.path(CHECKPOINTS)
        checkpoints.mark(places / f"checkpoint-{step}", step, validation)
        checkpoints.prune(places, job.keep)


def fit(trainer: Any, trainee: Trainee) -> None:
    """Train to the end, from the checkpoint of a killed training where there is one."""
    journal = Journal(trainee.job)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(journal)
    trainer.add_callback(Keeper(trainee, journal))
    resume = trainee.job.resume
    if resume is None or checkpoints.chosen(Path(resume).parent, "last").step < trainee.job.steps:
        trainer.train(resume_from_checkpoint=resume)


def finish(job: Job) -> None:
    """The chosen checkpoint as a Hugging Face folder."""
    best = checkpoints.chosen(job.path(CHECKPOINTS), job.keep)
    trust = job.model.trust_remote_code
    deliver(
        job,
        best,
        lambda base: AutoModelForCausalLM.from_pretrained(
            best.folder, config=base.config, dtype=base.dtype, trust_remote_code=trust
        ),
    )


def deliver(job: Job, best: checkpoints.Checkpoint, trained: Callable[[Any], Any]) -> None:
    """A Hugging Face folder like the base model's, with its dtype, tokenizer and defaults, and a card; `trained` makes
    the weights from the base model."""
    folder = job.path(MODEL)
    shutil.rmtree(folder, ignore_errors=True)
    base = hf.load_model(job.model)
    defaults = base.generation_config
    weights = trained(base)
    weights.generation_config = defaults
    weights.save_pretrained(folder)
    tokenizer = hf.load_tokenizer(job.model)
    tokenizer.save_pretrained(folder)
    prompts = [row.prompt for row in read_rows(job.path(TRAIN))[:NUM_CHECK_PROMPTS]]
    hf.write_tokenizer_check(tokenizer, folder, prompts)
    (folder / CARD).write_text(card(job, best), encoding="utf-8")
    check(replace(job.model, path=str(folder), revision=None))
    job.path(RESULT).write_text(json.dumps({"step": best.step, "validation": best.validation}), encoding="utf-8")


def check(model: Model) -> None:
    """Load a finished folder as any later stage will. Raises where tokenizer or weights are not what they should be."""
    hf.load_tokenizer(model)
    weights = hf.load_model(model)
    broken = [name for name, values in weights.named_parameters() if not torch.isfinite(values).all()]
    if broken:
        raise FloatingPointError(f"weights that are no finite numbers: {', '.join(broken[:3])}")


def main(train: Callable[[Trainee], None]) -> None:
    """The program of a training child: one job, from its file."""
    child.end_with_parent(sys.stdin)
    job = read_job(Path(sys.argv[1]))
    try:
        train(load(job))
        finish(job)
    except Exception as error:
        job.path(FAILURE).write_text(json.dumps({"reason": reason(error)}), encoding="utf-8")
        raise


def reason(error: Exception) -> str:
    """Why the training broke, for the user."""
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory: give a smaller train.device_batch"
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
