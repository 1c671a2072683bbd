"""The child of `train.Trl`: `python -m dsrl.train.trl_worker job.json`."""

import os
from typing import Any

from dsrl import hf
from dsrl.digest import digest
from dsrl.grade import Grader
from dsrl.model import Sampling
from dsrl.train.worker import Trainee, arguments, fit, main


def train(trainee: Trainee) -> None:
    """To the end, or on from a checkpoint."""
    fit(trainer(trainee, settings(trainee)), trainee)


def trainer(trainee: Trainee, config: dict[str, Any]) -> Any:
    """GRPO with our sampling, our prompts and our grader inside TRL's trainer."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    job = trainee.job
    rows = [trainee.rows[number] for number in trainee.order]
    data = Dataset.from_list([{"prompt": row.prompt, "answer": row.answer} for row in rows])
    return GRPOTrainer(
        model=trainee.model,
        args=GRPOConfig(**config),
        train_dataset=data,
        reward_funcs=[reward_function(trainee.grader, job.settings["format_share"])],
        processing_class=trainee.tokenizer,
        rollout_func=rollout_function(trainee),
    )


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
        prompts: list[str], completions: list[str], answer: list[str], log_metric: Any, **_others: Any
    ) -> list[float]:
        replies = zip(prompts, completions, answer, strict=True)
        grades = [grader.given(prompt).grade(text, gold) for prompt, text, gold in replies]
        log_metric("correct", sum(grade.correct for grade in grades) / len(grades))
        log_metric("format_ok", sum(grade.format_ok for grade in grades) / len(grades))
        return [grade.reward(format_share) for grade in grades]

    return reward


def rollout_function(trainee: Trainee) -> Any:
    """Completions drawn as everywhere else; the one at each place of each step has random numbers of its own."""
    ours, job = trainee.job.settings, trainee.job
    most = ours["max_response_tokens"]
    sampling = Sampling(temperature=ours["temperature"], top_p=ours["top_p"], max_tokens=most)

    def rollouts(prompts: list[str], trainer: Any) -> dict[str, Any]:
        ids = [trainee.encode(prompt) for prompt in prompts]
        streams = [digest([job.seed, "train", trainer.state.global_step, place], 32) for place in range(len(prompts))]
        limits = [min(most, trainee.limit - len(prompt)) for prompt in ids]
        asks = [hf.Ask(*ask) for ask in zip(ids, streams, limits, strict=True)]
        drawn = trainee.draw(asks, sampling)
        return {"prompt_ids": ids, "completion_ids": [reply.ids for reply in drawn], "logprobs": None}

    return rollouts


if __name__ == "__main__":
    main(train)
