"""Our words into veRL's: only what differs from its own defaults, by dotted keys. A leading `+` adds a key that veRL
reads but doesn't list."""

from typing import Any

from dsrl.stages.train.job import CHECKPOINTS, JOB, Job
from dsrl.stages.train.schedule import device_batch
from dsrl.stages.train.verl.resources import SHORT, Setup

Patch = dict[str, Any]

SOURCE = "dsrl"
"""The data source of all rows, under which veRL reports validations."""
TRAIN_TABLE, VALIDATION_TABLE = "train.parquet", "validation.parquet"
ACTOR, ROLLOUT, CRITIC = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "critic"

ESTIMATORS = {
    "grpo": "grpo",
    "dr_grpo": "grpo",
    "dapo": "grpo",
    "gspo": "grpo",
    "ppo": "gae",
    "rloo": "rloo",
    "reinforce_plus_plus": "reinforce_plus_plus",
    "remax": "remax",
}
"""Our algorithm -> veRL's estimator of advantages."""
MEANS = {"grpo": "seq-mean-token-mean", "gspo": "seq-mean-token-mean", "dr_grpo": "seq-mean-token-sum-norm"}
"""How the losses of tokens become one; where nothing is said, their mean over the batch."""


def patch(job: Job, prompt_tokens: int, *, validates: bool, model: Patch | None = None) -> Patch:
    """veRL's settings for a job whose longest prompt has so many tokens; `model`: what only the child can know."""
    setup = Setup(**job.settings["engine"])
    return {
        **_data(job, prompt_tokens),
        **_model(job, setup),
        **(model or {}),
        **_actor(job, setup),
        **_rollout(job, setup, prompt_tokens),
        **_reward(job, setup),
        **_trainer(job, setup, validates=validates),
        **algorithm(job, setup),
        **({} if setup.gpus else _on_cpu(job)),
    }


def algorithm(job: Job, setup: Setup) -> Patch:
    """What the algorithm alone decides."""
    ours, name = job.settings, job.algorithm
    clip = ours["clip"]
    common = {
        "algorithm.adv_estimator": ESTIMATORS[name],
        f"{ACTOR}.clip_ratio": clip,
        f"{ACTOR}.clip_ratio_low": clip,
        f"{ACTOR}.clip_ratio_high": ours.get("clip_high", clip),
        f"{ACTOR}.loss_agg_mode": MEANS.get(name, "token-mean"),
        f"{ACTOR}.use_kl_loss": ours["kl"] > 0,
        f"{ACTOR}.kl_loss_coef": ours["kl"],
    }
    own = {"dr_grpo": _dr_grpo, "dapo": _dapo, "gspo": _gspo, "remax": _remax}
    if name == "ppo":
        return {**common, **_ppo(job, setup)}
    return {**common, **(own[name](ours) if name in own else {})}


def _dr_grpo(ours: Patch) -> Patch:
    return {
        "algorithm.norm_adv_by_std_in_grpo": False,
        f"{ACTOR}.loss_scale_factor": ours["max_response_tokens"],
    }


def _gspo(_ours: Patch) -> Patch:
    return {f"{ACTOR}.policy_loss.loss_mode": "gspo"}


def _remax(_ours: Patch) -> Patch:
    """The newer of veRL's two trainers, 0.9.1's default, never draws the greedy reply that ReMax compares with."""
    return {"trainer.use_v1": False}


def _dapo(ours: Patch) -> Patch:
    """Groups are filtered by right and wrong: the penalty for length would make any two rewards differ."""
    most = ours["max_response_tokens"]
    length = round(ours["overlong"] * most)
    buffer = "+reward.reward_kwargs.overlong_buffer_cfg"
    penalty = {
        "reward.reward_manager.name": "dapo",
        "+reward.reward_kwargs.max_resp_len": most,
        f"{buffer}.enable": True,
        f"{buffer}.len": length,
        f"{buffer}.penalty_factor": 1.0,
        f"{buffer}.log": False,
    }
    return {
        "algorithm.filter_groups.enable": True,
        "algorithm.filter_groups.metric": "correct",
        "algorithm.filter_groups.max_inflight_gen_batches": ours["inflight_batches"],
        **(penalty if length else {}),
    }


def _ppo(job: Job, setup: Setup) -> Patch:
    ours = job.settings
    return {
        "algorithm.lam": ours["gae_lambda"],
        "trainer.critic_warmup": ours["critic_warmup_steps"],
        f"{CRITIC}.strategy": "fsdp2",
        f"{CRITIC}.ppo_micro_batch_size_per_gpu": micro_batch(job, setup),
        f"{CRITIC}.model.path": job.model.path,
        f"{CRITIC}.model.trust_remote_code": job.model.trust_remote_code,
        **_optimizer(f"{CRITIC}.optim", {**ours, "learning_rate": ours["critic_learning_rate"]}),
        **_engine(f"{CRITIC}.fsdp", setup),
    }


def micro_batch(job: Job, setup: Setup) -> int:
    """Replies on one device at a time: a divisor of its share of an update."""
    update = job.rows_per_step * job.settings["responses_per_prompt"]
    return device_batch(job.device_batch, max(1, update // setup.devices))


def _data(job: Job, prompt_tokens: int) -> Patch:
    """The rows stand in the file in the order in which they are trained on."""
    return {
        "data.train_files": str(job.path(TRAIN_TABLE)),
        "data.val_files": str(job.path(VALIDATION_TABLE)),
        "data.train_batch_size": job.rows_per_step,
        "data.max_prompt_length": prompt_tokens,
        "data.max_response_length": job.settings["max_response_tokens"],
        "data.shuffle": False,
        "data.validation_shuffle": False,
        "data.filter_overlong_prompts": False,
        "data.truncation": "error",
        "data.dataloader_num_workers": 0,
        "data.seed": job.seed,
    }


def _model(job: Job, setup: Setup) -> Patch:
    return {
        "actor_rollout_ref.model.path": job.model.path,
        "actor_rollout_ref.model.trust_remote_code": job.model.trust_remote_code,
        "actor_rollout_ref.model.enable_gradient_checkpointing": setup.gpus > 0,
        **_adapters(setup),
    }


def _adapters(setup: Setup) -> Patch:
    """vLLM gets them as adapters: merged before, they would be handed over in bfloat16. They need its own weights."""
    if not setup.lora_rank:
        return {}
    model = "actor_rollout_ref.model"
    return {f"{model}.lora_rank": setup.lora_rank, f"{model}.lora_alpha": setup.lora_alpha}


def _actor(job: Job, setup: Setup) -> Patch:
    size = micro_batch(job, setup)
    return {
        f"{ACTOR}.strategy": "fsdp2",
        f"{ACTOR}.ppo_mini_batch_size": job.rows_per_step,
        f"{ACTOR}.ppo_micro_batch_size_per_gpu": size,
        f"{ACTOR}.data_loader_seed": job.seed,
        f"{ACTOR}.freeze_vision_tower": job.settings["freeze_vision"],
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": size,
        f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu": size,
        **_optimizer(f"{ACTOR}.optim", job.settings),
        **_engine(f"{ACTOR}.fsdp_config", setup),
        **_engine("actor_rollout_ref.ref.fsdp_config", setup),
        f"{ACTOR}.fsdp_config.param_offload": setup.offload,
        f"{ACTOR}.fsdp_config.optimizer_offload": setup.offload,
    }


def _optimizer(place: str, ours: Patch) -> Patch:
    """Gradients are clipped by `optim.clip_grad`; `actor.grad_clip` is not read by the FSDP engine."""
    return {
        f"{place}.lr": ours["learning_rate"],
        f"{place}.lr_warmup_steps": ours["warmup_steps"],
        f"{place}.weight_decay": ours["weight_decay"],
        f"{place}.betas": [0.9, ours["adam_beta2"]],
        f"{place}.clip_grad": ours["max_grad_norm"],
    }


def _engine(place: str, setup: Setup) -> Patch:
    """The arithmetic is said in two places; unsaid in `mixed_precision`, it is bfloat16 whatever `dtype` says."""
    return {
        f"{place}.dtype": setup.dtype,
        f"+{place}.mixed_precision.param_dtype": SHORT[setup.dtype],
        f"+{place}.mixed_precision.reduce_dtype": "fp32",
        f"+{place}.mixed_precision.buffer_dtype": "fp32",
    }


def _rollout(job: Job, setup: Setup, prompt_tokens: int) -> Patch:
    ours, check = job.settings, job.validation
    return {
        f"{ROLLOUT}.name": "vllm",
        f"{ROLLOUT}.n": ours["responses_per_prompt"],
        f"{ROLLOUT}.temperature": ours["temperature"],
        f"{ROLLOUT}.top_p": ours["top_p"],
        f"{ROLLOUT}.seed": job.seed,
        f"{ROLLOUT}.dtype": setup.dtype,
        f"{ROLLOUT}.tensor_model_parallel_size": setup.tensor_parallel,
        f"{ROLLOUT}.gpu_memory_utilization": setup.gpu_memory,
        f"{ROLLOUT}.max_model_len": prompt_tokens + ours["max_response_tokens"],
        f"{ROLLOUT}.load_format": "auto",
        f"{ROLLOUT}.agent.num_workers": setup.workers,
        f"{ROLLOUT}.val_kwargs.n": job.validation_replies,
        f"{ROLLOUT}.val_kwargs.temperature": check.temperature,
        f"{ROLLOUT}.val_kwargs.top_p": check.top_p,
        f"{ROLLOUT}.val_kwargs.do_sample": check.temperature > 0,
    }


def _reward(job: Job, setup: Setup) -> Patch:
    return {
        "reward.num_workers": setup.workers,
        "reward.custom_reward_function.path": "pkg://dsrl.stages.train.verl.reward",
        "reward.custom_reward_function.name": "compute_score",
        "+reward.custom_reward_function.reward_kwargs.job": str(job.path(JOB)),
    }


def _trainer(job: Job, setup: Setup, *, validates: bool) -> Patch:
    every = job.checkpoint_every
    return {
        "trainer.device": "cuda" if setup.gpus else "cpu",
        "trainer.nnodes": setup.nodes,
        "trainer.n_gpus_per_node": setup.per_node,
        "trainer.project_name": "dsrl",
        "trainer.experiment_name": job.algorithm,
        "trainer.logger": ["file"],
        "trainer.total_epochs": 1,
        "trainer.total_training_steps": job.steps,
        "trainer.save_freq": every,
        "trainer.test_freq": every if validates else -1,
        "trainer.val_before_train": validates and job.resume is None,
        "trainer.default_local_dir": str(job.path(CHECKPOINTS)),
        "trainer.resume_mode": "resume_path" if job.resume else "disable",
        "trainer.resume_from_path": job.resume,
    }


def _on_cpu(job: Job) -> Patch:
    """Everything that supposes a GPU is turned off, and weights reach vLLM by our own extension of its worker."""
    critic = {f"{CRITIC}.fsdp.use_torch_compile": False, **_plain(f"{CRITIC}.model")} if job.algorithm == "ppo" else {}
    vllm = f"+{ROLLOUT}.engine_kwargs.vllm"
    return {
        **_plain("actor_rollout_ref.model"),
        f"{ACTOR}.use_torch_compile": False,
        f"{ACTOR}.fsdp_config.use_torch_compile": False,
        "actor_rollout_ref.ref.fsdp_config.use_torch_compile": False,
        f"{ROLLOUT}.enforce_eager": True,
        f"{ROLLOUT}.free_cache_engine": False,
        f"+{ROLLOUT}.enable_sleep_mode": False,
        f"{ROLLOUT}.max_num_seqs": 64,
        f"{ROLLOUT}.checkpoint_engine.update_weights_bucket_megabytes": 64,
        f"{vllm}.worker_extension_cls": "dsrl.stages.train.verl.cpu_rollout.CpuWorkerExtension",
        f"{vllm}.distributed_executor_backend": "uni",
        "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1,
        **critic,
    }


def _plain(model: str) -> Patch:
    return {
        f"{model}.use_remove_padding": False,
        f"{model}.enable_gradient_checkpointing": False,
        f"+{model}.override_config.attn_implementation": "sdpa",
    }
