"""The child of `train.Trl`: `python -m dsrl.stages.train.trl_worker job.json`."""

import os
from typing import Any

from dsrl.core.digest import digest
from dsrl.core.errors import UserError
from dsrl.data.images.prompt import IMAGE
from dsrl.data.model import Sampling
from dsrl.graders import Grader
from dsrl.stages.train.hf_worker import Asked, Trainee, arguments, fit, main
from dsrl.stages.train.job import Job, Row

TOWERS = frozenset(("visual", "vision_tower", "vision_model"))
"""What transformers calls the part of a model that reads pictures."""


def train(trainee: Trainee) -> None:
    """To the end, or on from a checkpoint."""
    fit(trainer(trainee, settings(trainee)), trainee)


def trainer(trainee: Trainee, config: dict[str, Any]) -> Any:
    """GRPO with our sampling, our prompts and our grader inside TRL's trainer."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    job = trainee.job
    if trainee.shows and job.model.prompt_format == "raw":
        raise UserError(
            "train=trl puts pictures to a model in chat turns only", next_step="give model.prompt_format=chat"
        )
    rows = [trainee.rows[number] for number in trainee.order]
    data = Dataset.from_list([columns(trainee, row) for row in rows])
    made = GRPOTrainer(
        model=trainee.model,
        args=GRPOConfig(**config),
        train_dataset=data.with_transform(illustrate) if trainee.shows else data,
        reward_funcs=[reward_function(trainee.grader, job.settings["format_share"])],
        processing_class=trainee.processor if trainee.shows else trainee.tokenizer,
        rollout_func=rollout_function(trainee),
        peft_config=adapters(job),
    )
    trainee.model = made.model
    if job.settings["freeze_vision"]:
        freeze(trainee.model)
    return made


def adapters(job: Job) -> Any:
    """Small matrices beside those of all linear layers, where only these are to be trained; else None."""
    rank = job.settings.get("lora_rank")
    if rank is None:
        return None
    import torch
    from peft import LoraConfig

    torch.manual_seed(job.seed)  # they begin at random
    return LoraConfig(
        r=rank,
        lora_alpha=job.settings["lora_alpha"],
        target_modules="all-linear",
        exclude_modules=rf".*\b({'|'.join(sorted(TOWERS))})\b.*" if job.settings["freeze_vision"] else None,
        task_type="CAUSAL_LM",
    )


def freeze(model: Any) -> None:
    """Leave the part that reads pictures as it is, adapters beside it too."""
    tower = [weights for name, weights in model.named_parameters() if TOWERS & set(name.split("."))]
    if not tower:
        raise UserError(
            "train.freeze_vision: the model has no part that reads pictures", next_step="give train.freeze_vision=false"
        )
    for weights in tower:
        weights.requires_grad_(False)


def columns(trainee: Trainee, row: Row) -> dict[str, Any]:
    """What TRL is given of a row. It takes pictures in conversations only, and all rows must look alike."""
    fixed = {"text": row.prompt, "answer": row.answer}
    if not trainee.shows:
        return {**fixed, "prompt": row.prompt}
    from dsrl.models import vision

    files = trainee.files(row)
    return {**fixed, "prompt": vision.turns(row.prompt, len(files)), "images": files}


def illustrate(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Rows with their pictures opened, each once."""
    from dsrl.models import vision

    pictures = {name: vision.opened(name) for files in batch["images"] for name in files}
    prompts = [[_without_none(turn) for turn in prompt] for prompt in batch["prompt"]]
    return {**batch, "prompt": prompts, "images": [[pictures[name] for name in files] for files in batch["images"]]}


def _without_none(turn: dict[str, Any]) -> dict[str, Any]:
    """A data set gives the parts of a turn the keys of all parts."""
    parts = [{key: value for key, value in part.items() if value is not None} for part in turn["content"]]
    return {**turn, "content": parts}


def asked(prompt: Any) -> Asked:
    """A prompt as TRL hands it on, as we put it to a model."""
    if isinstance(prompt, str):
        return prompt, ()
    parts = prompt[0]["content"]
    words = [part["text"] if part["type"] == "text" else IMAGE for part in parts]
    return "".join(words), [part["image"] for part in parts if part["type"] == "image"]


def settings(trainee: Trainee) -> dict[str, Any]:
    """Our hyper-parameters in TRL's words."""
    job, ours = trainee.job, trainee.job.settings
    return {
        **arguments(job, ours["prompts_per_step"] * ours["responses_per_prompt"]),
        "num_generations": ours["responses_per_prompt"],
        "max_completion_length": ours["max_response_tokens"],
        "temperature": ours["temperature"],
        "top_p": ours["top_p"],
        "top_k": 0,
        "beta": ours["kl"],
        "epsilon": ours["clip"],
        "num_iterations": 1,
        "loss_type": ours["loss_type"],
        "scale_rewards": ours["scale_rewards"],
        "lr_scheduler_type": "constant_with_warmup",
        "adam_beta2": ours["adam_beta2"],
        "shuffle_dataset": False,
        "disable_dropout": True,
        "trust_remote_code": job.model.trust_remote_code,
    }


def reward_function(grader: Grader, format_share: float) -> Any:
    """The task's grader as TRL calls it: for each completion its reward; shares of right ones go into the journal."""

    def reward(
        text: list[str], completions: list[Any], answer: list[str], log_metric: Any, **_others: Any
    ) -> list[float]:
        said = [reply if isinstance(reply, str) else reply[0]["content"] for reply in completions]
        replies = zip(text, said, answer, strict=True)
        grades = [grader.for_question(prompt).grade(reply, gold) for prompt, reply, gold in replies]
        log_metric("correct", sum(grade.correct for grade in grades) / len(grades))
        log_metric("format_ok", sum(grade.format_ok for grade in grades) / len(grades))
        return [grade.reward(format_share) for grade in grades]

    return reward


def rollout_function(trainee: Trainee) -> Any:
    """Completions drawn as everywhere else; the one at each place of each step has random numbers of its own."""
    ours, job = trainee.job.settings, trainee.job
    sampling = Sampling(temperature=ours["temperature"], top_p=ours["top_p"], max_tokens=ours["max_response_tokens"])

    def rollouts(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        streams = [digest([job.seed, "train", trainer.state.global_step, place], 32) for place in range(len(prompts))]
        told = trainee.replies([asked(prompt) for prompt in prompts], streams, sampling)
        return {
            "prompt_ids": [ids for ids, _ in told],
            "completion_ids": [reply.ids for _, reply in told],
            "logprobs": None,
        }

    return rollouts


if __name__ == "__main__":
    main(train)
