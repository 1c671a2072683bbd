"""What the training children share: loading, the journal, checkpoints with their validation, the finished folder."""

import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback

from dsrl.core import child_process
from dsrl.core.digest import digest
from dsrl.core.errors import UserError
from dsrl.data.model import Model, Sampling, reads_images
from dsrl.graders import Grader
from dsrl.graders.rebuild import rebuild
from dsrl.models import huggingface
from dsrl.stages.train import checkpoints
from dsrl.stages.train.card import card
from dsrl.stages.train.job import (
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
from dsrl.stages.train.schedule import device_batch, order

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


Asked = tuple[str, Sequence[Any]]
"""A prompt and its pictures, or their files."""
Told = tuple[list[int], huggingface.Drawn]
"""A prompt's tokens and the reply to it."""


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

    @cached_property
    def shows(self) -> bool:
        """Whether any row comes with pictures."""
        return any(row.images for row in (*self.rows, *self.held_out))

    @cached_property
    def processor(self) -> Any:
        """What reads words and pictures."""
        return _load_processor(self.job.model)

    def files(self, row: Row) -> list[str]:
        """Where the row's pictures are."""
        return [str(Path(self.job.images) / name) for name in row.images]

    def encode(self, prompt: str) -> list[int]:
        """The prompt's tokens, as in every other stage. Raises `UserError` where they leave no room for a reply."""
        ids = huggingface.encode_prompt(self.tokenizer, prompt, self.job.model.prompt_format)
        self._check_room(len(ids))
        return ids

    def _check_room(self, longest: int) -> None:
        if longest >= self.limit:
            raise UserError(
                "a prompt leaves no room for a reply", got=f"{longest} tokens", allowed=f"less than {self.limit}"
            )

    def replies(self, prompts: Sequence[Asked], streams: Sequence[str], sampling: Sampling) -> list[Told]:
        """A reply to each prompt by the model as it is now."""
        size = self.job.device_batch or DEVICE_BATCH
        was_training = self.model.training
        self.model.eval()
        parts = [slice(start, start + size) for start in range(0, len(prompts), size)]
        told = [one for part in parts for one in self._told(prompts[part], streams[part], sampling)]
        self.model.train(was_training)
        return told

    def _told(self, prompts: Sequence[Asked], streams: Sequence[str], sampling: Sampling) -> list[Told]:
        """In one batch."""
        ids, inputs = self._encoded(prompts)
        self._check_room(max(map(len, ids)))
        limits = [min(sampling.max_tokens, self.limit - len(prompt)) for prompt in ids]
        if inputs is None:
            asks = [huggingface.Ask(*ask) for ask in zip(ids, streams, limits, strict=True)]
            drawn = huggingface.draw(self.model, self.tokenizer, asks, sampling)
        else:
            drawn = huggingface.draw_from(self.model, self.tokenizer, inputs, streams, limits, sampling)
        return list(zip(ids, drawn, strict=True))

    def _encoded(self, prompts: Sequence[Asked]) -> tuple[list[list[int]], dict[str, Any] | None]:
        """Each prompt's tokens as in every other stage, those of its pictures among them; and the tensors of the
        batch, where it has pictures."""
        form = self.job.model.prompt_format
        if not any(pictures for _, pictures in prompts):
            return [huggingface.encode_prompt(self.tokenizer, text, form) for text, _ in prompts], None
        from dsrl.models import vision

        inputs = vision.encode(self.processor, [vision.Shown(*prompt) for prompt in prompts], form)
        return vision.prompt_ids(inputs), inputs

    def validate(self) -> float | None:
        """Share of right replies to the held-out samples. The same random numbers each time, so that checkpoints
        differ by their weights alone."""
        sampling = self.job.validation
        pairs = [(row, number) for row in self.held_out for number in range(self.job.validation_replies)]
        if not pairs:
            return None
        prompts = [(row.prompt, self.files(row)) for row, _ in pairs]
        streams = [digest([self.job.seed, "validation", row.id, number], 32) for row, number in pairs]
        told = self.replies(prompts, streams, sampling)
        texts = [self.tokenizer.decode(drawn.ids, skip_special_tokens=True) for _, drawn in told]
        grades = [
            self.grader.for_question(row.prompt).grade(text, row.answer)
            for text, (row, _) in zip(texts, pairs, strict=True)
        ]
        return sum(grade.correct for grade in grades) / len(grades)


def load(job: Job) -> Trainee:
    """Weights in float32, which small updates need; a GPU computes in bfloat16 all the same."""
    model = huggingface.load_model(job.model, huggingface.pick_device(), "float32")
    if job.resume and not job.settings.get("lora_rank") and reads_images(model.config.to_dict()):
        take_up(model, job.resume)
    return Trainee(
        job=job,
        model=model,
        tokenizer=huggingface.load_tokenizer(job.model),
        grader=rebuild(job.grader),
        rows=read_rows(job.path(TRAIN)),
        held_out=read_rows(job.path(VALIDATION)),
        limit=huggingface.context_length(job.model, model),
    )


def take_up(model: Any, checkpoint: str) -> None:
    """The weights of a whole checkpoint. The trainer of transformers takes them by the names in the file; where a model
    that reads pictures calls them otherwise, it goes on with the weights it has, without a word."""
    saved = type(model).from_pretrained(checkpoint, config=model.config, dtype=torch.float32)
    model.load_state_dict(saved.state_dict())


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
    trained = _merged if job.settings.get("lora_rank") else _whole
    deliver(job, best, lambda base: trained(job, best, base))


def _whole(job: Job, best: checkpoints.Checkpoint, base: Any) -> Any:
    """The checkpoint's own weights."""
    trust = job.model.trust_remote_code
    return type(base).from_pretrained(best.folder, config=base.config, dtype=base.dtype, trust_remote_code=trust)


def _merged(job: Job, best: checkpoints.Checkpoint, base: Any) -> Any:
    """The base model with the checkpoint's adapters in its weights, added in float32."""
    from peft import PeftModel

    whole = huggingface.load_model(job.model, "cpu", "float32")
    return PeftModel.from_pretrained(whole, best.folder).merge_and_unload().to(base.dtype)


def deliver(job: Job, best: checkpoints.Checkpoint, trained: Callable[[Any], Any]) -> None:
    """A Hugging Face folder like the base model's, with its dtype, tokenizer and defaults, and a card; `trained` makes
    the weights from the base model."""
    folder = job.path(MODEL)
    shutil.rmtree(folder, ignore_errors=True)
    base = huggingface.load_model(job.model)
    defaults = base.generation_config
    weights = trained(base)
    weights.generation_config = defaults
    weights.save_pretrained(folder)
    tokenizer = huggingface.load_tokenizer(job.model)
    tokenizer.save_pretrained(folder)
    rows = read_rows(job.path(TRAIN))
    if pictures := any(row.images for row in rows):
        _load_processor(job.model).save_pretrained(folder)
    huggingface.write_tokenizer_check(tokenizer, folder, [row.prompt for row in rows[:NUM_CHECK_PROMPTS]])
    (folder / CARD).write_text(card(job, best), encoding="utf-8")
    check(replace(job.model, path=str(folder), revision=None), pictures)
    job.path(RESULT).write_text(json.dumps({"step": best.step, "validation": best.validation}), encoding="utf-8")


def _load_processor(model: Model) -> Any:
    """Imported for those that train with pictures only."""
    from dsrl.models import vision

    return vision.load_processor(model)


def check(model: Model, pictures: bool = False) -> None:
    """Load a finished folder as any later stage will. Raises where tokenizer, processor or weights are not what they
    should be."""
    huggingface.load_tokenizer(model)
    if pictures:
        _load_processor(model)
    weights = huggingface.load_model(model)
    broken = [name for name, values in weights.named_parameters() if not torch.isfinite(values).all()]
    if broken:
        raise FloatingPointError(f"weights that are no finite numbers: {', '.join(broken[:3])}")


def main(train: Callable[[Trainee], None]) -> None:
    """The program of a training child: one job, from its file."""
    child_process.end_with_parent(sys.stdin)
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
