"""The child of `train.Sft`: `python -m dsrl.stages.train.sft_worker job.json`."""

from collections.abc import Sequence
from typing import Any

import torch

from dsrl.core.errors import UserError
from dsrl.models import huggingface
from dsrl.stages.train.hf_worker import TrainingRun, fit, main, trainer_arguments
from dsrl.stages.train.job import TrainingRow

IGNORED = -100
"""Label of tokens without loss."""


def train(run: TrainingRun) -> None:
    """Next-token loss on the solutions."""
    from transformers import Trainer, TrainingArguments

    job = run.job
    examples = [encode_example(run, row) for row in run.rows]
    arguments = trainer_arguments(job, job.settings["batch"])
    trainer = Trainer(
        model=run.model,
        args=TrainingArguments(**arguments, lr_scheduler_type="linear", train_sampling_strategy="sequential"),
        train_dataset=[examples[number] for number in run.order],
        data_collator=lambda batch: collate(batch, run.tokenizer.pad_token_id),
    )
    fit(trainer, run)


def encode_example(run: TrainingRun, row: TrainingRow) -> dict[str, list[int]]:
    """Tokens and labels of prompt, solution and end of turn. Raises `UserError` if they exceed the context."""
    assert row.solution is not None, "the parent only writes rows with a solution"
    prompt = run.encode(row.prompt)
    end = huggingface.end_of_reply_ids(run.tokenizer, run.job.model.prompt_format, run.stops)
    solution = [*run.tokenizer(row.solution, add_special_tokens=False)["input_ids"], *end]
    if len(prompt) + len(solution) > run.limit:
        raise UserError(
            f"sample {row.id}: question and solution are too long for the model",
            got=f"{len(prompt) + len(solution)} tokens",
            allowed=f"{run.limit}",
            next_step="raise model.max_length",
        )
    return {"input_ids": prompt + solution, "labels": [IGNORED] * len(prompt) + solution}


def collate(batch: Sequence[dict[str, list[int]]], pad: int) -> dict[str, torch.Tensor]:
    """Tensors of shape (batch, longest sequence), padded on the right."""
    width = max(len(row["input_ids"]) for row in batch)
    fills = {"input_ids": pad, "labels": IGNORED}
    columns: dict[str, Any] = {
        name: torch.tensor([row[name] + [fill] * (width - len(row[name])) for row in batch])
        for name, fill in fills.items()
    }
    lengths = torch.tensor([[len(row["input_ids"])] for row in batch])
    return {**columns, "attention_mask": (torch.arange(width)[None, :] < lengths).long()}


if __name__ == "__main__":
    main(train)
