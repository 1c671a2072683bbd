"""The child of `train.Sft`: `python -m dsrl.stages.train.sft_worker job.json`."""

from collections.abc import Sequence
from typing import Any

import torch

from dsrl.core.errors import UserError
from dsrl.stages.train.hf_worker import Trainee, arguments, fit, main
from dsrl.stages.train.job import Row

IGNORED = -100
"""Label of tokens that bear no loss."""


def train(trainee: Trainee) -> None:
    """Next-token loss on the solutions."""
    from transformers import Trainer, TrainingArguments

    job = trainee.job
    examples = [example(trainee, row) for row in trainee.rows]
    settings = arguments(job, job.settings["batch"])
    pad = trainee.tokenizer.pad_token_id or trainee.tokenizer.eos_token_id
    trainer = Trainer(
        model=trainee.model,
        args=TrainingArguments(**settings, lr_scheduler_type="linear", train_sampling_strategy="sequential"),
        train_dataset=[examples[number] for number in trainee.order],
        data_collator=lambda batch: collate(batch, pad),
    )
    fit(trainer, trainee)


def example(trainee: Trainee, row: Row) -> dict[str, list[int]]:
    """Prompt, solution and stop token. Raises `UserError` where they are too long for the model."""
    assert row.solution is not None, "the parent hands on rows with a solution only"
    prompt = trainee.encode(row.prompt)
    solution = [*trainee.tokenizer(row.solution, add_special_tokens=False)["input_ids"], trainee.tokenizer.eos_token_id]
    if len(prompt) + len(solution) > trainee.limit:
        raise UserError(
            f"sample {row.id}: question and solution are too long for the model",
            got=f"{len(prompt) + len(solution)} tokens",
            allowed=f"{trainee.limit}",
            next_step="raise model.max_length",
        )
    return {"input_ids": prompt + solution, "labels": [IGNORED] * len(prompt) + solution}


def collate(batch: Sequence[dict[str, list[int]]], pad: int) -> dict[str, torch.Tensor]:
    """Padded on the right."""
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
