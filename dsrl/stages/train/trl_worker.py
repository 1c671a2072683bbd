"""The child of `train.Trl`: `python -m dsrl.stages.train.trl_worker job.json`."""

import os
from typing import Any

from dsrl.core.digest import digest
from dsrl.core.errors import UserError
from dsrl.data.model import Sampling
from dsrl.data.sample import IMAGE
from dsrl.graders import Grader
from dsrl.stages.train.hf_worker import Prompt, TrainingRun, fit, main, trainer_arguments
from dsrl.stages.train.job import TrainingJob, TrainingRow

VISION_TOWERS = frozenset(("visual", "vision_tower", "vision_model"))
"""Names of the image encoder in transformers' vision-language models."""


def train(run: TrainingRun) -> None:
    fit(build_trainer(run, grpo_arguments(run)), run)


def build_trainer(run: TrainingRun, arguments: dict[str, Any]) -> Any:
    """TRL's GRPO trainer with our sampling, prompts and grader."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    job = run.job
    if run.has_images and job.model.prompt_format == "raw":
        raise UserError(
            "train=trl supports images only with a chat template", next_step="give model.prompt_format=chat"
        )
    data = Dataset.from_list([dataset_row(run, run.rows[number]) for number in run.order])
    trainer = GRPOTrainer(
        model=run.model,
        args=GRPOConfig(**arguments),
        train_dataset=data.with_transform(open_images) if run.has_images else data,
        reward_funcs=[reward_function(run.grader, job.settings["format_share"])],
        processing_class=run.processor if run.has_images else run.tokenizer,
        rollout_func=rollout_function(run),
        peft_config=lora_config(job),
    )
    run.model = trainer.model
    if job.settings["freeze_vision"]:
        freeze_vision(run.model)
    return trainer


def lora_config(job: TrainingJob) -> Any:
    """LoRA on all linear layers; None to train all weights."""
    rank = job.settings.get("lora_rank")
    if rank is None:
        return None
    import torch
    from peft import LoraConfig

    torch.manual_seed(job.seed)  # adapters are initialised at random
    return LoraConfig(
        r=rank,
        lora_alpha=job.settings["lora_alpha"],
        target_modules="all-linear",
        exclude_modules=rf".*\b({'|'.join(sorted(VISION_TOWERS))})\b.*" if job.settings["freeze_vision"] else None,
        task_type="CAUSAL_LM",
    )


def freeze_vision(model: Any) -> None:
    """Freeze the image encoder. Raises `UserError` if the model has none."""
    tower = [weights for name, weights in model.named_parameters() if VISION_TOWERS & set(name.split("."))]
    if not tower:
        raise UserError(
            "train.freeze_vision: the model has no vision tower", next_step="give train.freeze_vision=false"
        )
    for weights in tower:
        weights.requires_grad_(False)


def dataset_row(run: TrainingRun, row: TrainingRow) -> dict[str, Any]:
    """The columns that TRL needs. It takes images in conversations only, and all rows must have the same form."""
    columns = {"text": row.prompt, "answer": row.answer}
    if not run.has_images:
        return {**columns, "prompt": row.prompt}
    from dsrl.models import vision

    paths = run.image_paths(row)
    return {**columns, "prompt": vision.turns(row.prompt, len(paths)), "images": paths}


def open_images(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """A batch with its image files opened, each of them once."""
    from dsrl.models import vision

    images = {path: vision.opened(path) for paths in batch["images"] for path in paths}
    prompts = [[_drop_none(turn) for turn in prompt] for prompt in batch["prompt"]]
    return {**batch, "prompt": prompts, "images": [[images[path] for path in paths] for paths in batch["images"]]}


def _drop_none(turn: dict[str, Any]) -> dict[str, Any]:
    """`datasets` gives every content part of a turn the keys of all parts, with None."""
    parts = [{key: value for key, value in part.items() if value is not None} for part in turn["content"]]
    return {**turn, "content": parts}


def to_prompt(prompt: Any) -> Prompt:
    """A prompt in TRL's form (a string, or a conversation with images) as text and images."""
    if isinstance(prompt, str):
        return prompt, ()
    parts = prompt[0]["content"]
    words = [part["text"] if part["type"] == "text" else IMAGE for part in parts]
    return "".join(words), [part["image"] for part in parts if part["type"] == "image"]


def grpo_arguments(run: TrainingRun) -> dict[str, Any]:
    """Arguments of TRL's `GRPOConfig`."""
    job, settings = run.job, run.job.settings
    return {
        **trainer_arguments(job, settings["prompts_per_step"] * settings["responses_per_prompt"]),
        "num_generations": settings["responses_per_prompt"],
        "max_completion_length": settings["max_response_tokens"],
        "temperature": settings["temperature"],
        "top_p": settings["top_p"],
        "top_k": 0,
        "beta": settings["kl"],
        "epsilon": settings["clip"],
        "num_iterations": 1,
        "loss_type": settings["loss_type"],
        "scale_rewards": settings["scale_rewards"],
        "lr_scheduler_type": "constant_with_warmup",
        "adam_beta2": settings["adam_beta2"],
        "shuffle_dataset": False,
        "disable_dropout": True,
        "trust_remote_code": job.model.trust_remote_code,
    }


def reward_function(grader: Grader, format_share: float) -> Any:
    """The task's grader with the signature of TRL's reward functions. It also logs the shares of correct replies and of
    replies in the output format."""

    def reward(
        text: list[str], completions: list[Any], answer: list[str], log_metric: Any, **_others: Any
    ) -> list[float]:
        replies = [reply if isinstance(reply, str) else reply[0]["content"] for reply in completions]
        grades = [
            grader.for_question(prompt).grade(reply, gold)
            for prompt, reply, gold in zip(text, replies, answer, strict=True)
        ]
        log_metric("correct", sum(grade.correct for grade in grades) / len(grades))
        log_metric("format_ok", sum(grade.format_ok for grade in grades) / len(grades))
        return [grade.reward(format_share) for grade in grades]

    return reward


def rollout_function(run: TrainingRun) -> Any:
    """Replies drawn as in every other stage. Each position of each step has its own random numbers."""
    job, settings = run.job, run.job.settings
    sampling = Sampling(
        temperature=settings["temperature"], top_p=settings["top_p"], max_tokens=settings["max_response_tokens"]
    )

    def rollouts(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        step = trainer.state.global_step
        streams = [digest([job.seed, "train", step, position], 32) for position in range(len(prompts))]
        completions = run.replies([to_prompt(prompt) for prompt in prompts], streams, sampling)
        return {
            "prompt_ids": [ids for ids, _ in completions],
            "completion_ids": [reply.ids for _, reply in completions],
            "logprobs": None,
        }

    return rollouts


if __name__ == "__main__":
    main(train)
