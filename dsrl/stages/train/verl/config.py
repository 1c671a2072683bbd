"""A job's veRL config as its difference from veRL's defaults, by dotted keys. A leading `+` adds a key that veRL reads
but doesn't list."""

from typing import Any

from dsrl.stages.train.job import CHECKPOINTS, JOB, TrainingJob
from dsrl.stages.train.rows import device_batch_size
from dsrl.stages.train.verl.resources import VERL_DTYPES, VerlResources

Overrides = dict[str, Any]

SOURCE = "dsrl"
"""The data source of all rows; veRL reports validation scores under it."""
TRAIN_TABLE, VALIDATION_TABLE = "train.parquet", "validation.parquet"
MODEL, ACTOR, ROLLOUT = (f"actor_rollout_ref.{part}" for part in ("model", "actor", "rollout"))
REFERENCE, CRITIC = "actor_rollout_ref.ref", "critic"

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
"""Algorithm -> veRL's advantage estimator."""
LOSS_MODES = {"grpo": "seq-mean-token-mean", "gspo": "seq-mean-token-mean", "dr_grpo": "seq-mean-token-sum-norm"}
"""Algorithm -> aggregation of the token losses; `token-mean` over the batch for the others."""


def verl_config(job: TrainingJob, prompt_tokens: int, *, validates: bool, model: Overrides | None = None) -> Overrides:
    """The config of a job whose longest prompt has `prompt_tokens`. `validates`: whether there are held-out samples;
    `model`: settings that are known only once the model is loaded."""
    resources = VerlResources(**job.settings["engine"])
    return {
        **_data(job, prompt_tokens),
        **_model(job, resources),
        **(model or {}),
        **_actor(job, resources),
        **_rollout(job, resources, prompt_tokens),
        **_reward(job, resources),
        **_trainer(job, resources, validates=validates),
        **algorithm_config(job, resources),
        **({} if resources.gpus else _on_cpu(job)),
    }


def algorithm_config(job: TrainingJob, resources: VerlResources) -> Overrides:
    """The settings that depend on the algorithm alone."""
    settings, name = job.settings, job.algorithm
    clip = settings["clip"]
    config = {
        "algorithm.adv_estimator": ESTIMATORS[name],
        f"{ACTOR}.clip_ratio": clip,
        f"{ACTOR}.clip_ratio_low": clip,
        f"{ACTOR}.clip_ratio_high": settings.get("clip_high", clip),
        f"{ACTOR}.loss_agg_mode": LOSS_MODES.get(name, "token-mean"),
        f"{ACTOR}.use_kl_loss": settings["kl"] > 0,
        f"{ACTOR}.kl_loss_coef": settings["kl"],
    }
    if name == "dr_grpo":
        config["algorithm.norm_adv_by_std_in_grpo"] = False
        config[f"{ACTOR}.loss_scale_factor"] = settings["max_response_tokens"]
    elif name == "gspo":
        config[f"{ACTOR}.policy_loss.loss_mode"] = "gspo"
    elif name == "remax":
        # veRL 0.9.1's default trainer, the newer of two, never draws the greedy reply that is ReMax's baseline
        config["trainer.use_v1"] = False
    elif name == "dapo":
        config |= _dapo(settings)
    elif name == "ppo":
        config |= _ppo(job, resources)
    return config


def _dapo(settings: dict[str, Any]) -> Overrides:
    """Groups are filtered by correctness: with the length penalty, hardly any two rewards would be equal."""
    longest = settings["max_response_tokens"]
    length = round(settings["overlong"] * longest)
    buffer = "+reward.reward_kwargs.overlong_buffer_cfg"
    penalty = {
        "reward.reward_manager.name": "dapo",
        "+reward.reward_kwargs.max_resp_len": longest,
        f"{buffer}.enable": True,
        f"{buffer}.len": length,
        f"{buffer}.penalty_factor": 1.0,
        f"{buffer}.log": False,
    }
    return {
        "algorithm.filter_groups.enable": True,
        "algorithm.filter_groups.metric": "correct",
        "algorithm.filter_groups.max_inflight_gen_batches": settings["inflight_batches"],
        **(penalty if length else {}),
    }


def _ppo(job: TrainingJob, resources: VerlResources) -> Overrides:
    settings = job.settings
    return {
        "algorithm.lam": settings["gae_lambda"],
        "trainer.critic_warmup": settings["critic_warmup_steps"],
        f"{CRITIC}.strategy": "fsdp2",
        f"{CRITIC}.ppo_micro_batch_size_per_gpu": micro_batch_size(job, resources),
        f"{CRITIC}.model.path": job.model.path,
        f"{CRITIC}.model.trust_remote_code": job.model.trust_remote_code,
        **_optimizer(f"{CRITIC}.optim", settings, settings["critic_learning_rate"]),
        **_fsdp(f"{CRITIC}.fsdp", resources),
    }


def micro_batch_size(job: TrainingJob, resources: VerlResources) -> int:
    """Replies on one device at a time: a divisor of the device's share of an update."""
    update = job.rows_per_step * job.settings["responses_per_prompt"]
    return device_batch_size(job.device_batch, max(1, update // resources.devices))


def _data(job: TrainingJob, prompt_tokens: int) -> Overrides:
    """The table's rows are already in the order of the training."""
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


def _model(job: TrainingJob, resources: VerlResources) -> Overrides:
    config: Overrides = {
        f"{MODEL}.path": job.model.path,
        f"{MODEL}.trust_remote_code": job.model.trust_remote_code,
        f"{MODEL}.enable_gradient_checkpointing": resources.gpus > 0,
    }
    if resources.lora_rank:
        config |= {f"{MODEL}.lora_rank": resources.lora_rank, f"{MODEL}.lora_alpha": resources.lora_alpha}
    return config


def _actor(job: TrainingJob, resources: VerlResources) -> Overrides:
    size = micro_batch_size(job, resources)
    return {
        f"{ACTOR}.strategy": "fsdp2",
        f"{ACTOR}.ppo_mini_batch_size": job.rows_per_step,
        f"{ACTOR}.ppo_micro_batch_size_per_gpu": size,
        f"{ACTOR}.data_loader_seed": job.seed,
        f"{ACTOR}.freeze_vision_tower": job.settings["freeze_vision"],
        f"{REFERENCE}.log_prob_micro_batch_size_per_gpu": size,
        f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu": size,
        **_optimizer(f"{ACTOR}.optim", job.settings, job.settings["learning_rate"]),
        **_fsdp(f"{ACTOR}.fsdp_config", resources),
        **_fsdp(f"{REFERENCE}.fsdp_config", resources),
        f"{ACTOR}.fsdp_config.param_offload": resources.offload,
        f"{ACTOR}.fsdp_config.optimizer_offload": resources.offload,
    }


def _optimizer(key: str, settings: dict[str, Any], learning_rate: float) -> Overrides:
    """Gradients are clipped by `optim.clip_grad`; `actor.grad_clip` is not read by the FSDP engine."""
    return {
        f"{key}.lr": learning_rate,
        f"{key}.lr_warmup_steps": settings["warmup_steps"],
        f"{key}.weight_decay": settings["weight_decay"],
        f"{key}.betas": [0.9, settings["adam_beta2"]],
        f"{key}.clip_grad": settings["max_grad_norm"],
    }


def _fsdp(key: str, resources: VerlResources) -> Overrides:
    """The dtype must be set twice: without `mixed_precision`, veRL computes in bfloat16 whatever `dtype` is."""
    return {
        f"{key}.dtype": resources.dtype,
        f"+{key}.mixed_precision.param_dtype": VERL_DTYPES[resources.dtype],
        f"+{key}.mixed_precision.reduce_dtype": "fp32",
        f"+{key}.mixed_precision.buffer_dtype": "fp32",
    }


def _rollout(job: TrainingJob, resources: VerlResources, prompt_tokens: int) -> Overrides:
    """vLLM gets adapters as adapters: merged into its weights, they would be transferred in bfloat16. That is why it
    must load the base weights itself (`load_format`)."""
    settings, validation = job.settings, job.validation
    return {
        f"{ROLLOUT}.name": "vllm",
        f"{ROLLOUT}.n": settings["responses_per_prompt"],
        f"{ROLLOUT}.temperature": settings["temperature"],
        f"{ROLLOUT}.top_p": settings["top_p"],
        f"{ROLLOUT}.seed": job.seed,
        f"{ROLLOUT}.dtype": resources.dtype,
        f"{ROLLOUT}.tensor_model_parallel_size": resources.tensor_parallel,
        f"{ROLLOUT}.gpu_memory_utilization": resources.gpu_memory,
        f"{ROLLOUT}.max_model_len": prompt_tokens + settings["max_response_tokens"],
        f"{ROLLOUT}.load_format": "auto",
        f"{ROLLOUT}.agent.num_workers": resources.workers,
        f"{ROLLOUT}.val_kwargs.n": job.validation_replies,
        f"{ROLLOUT}.val_kwargs.temperature": validation.temperature,
        f"{ROLLOUT}.val_kwargs.top_p": validation.top_p,
        f"{ROLLOUT}.val_kwargs.do_sample": validation.temperature > 0,
    }


def _reward(job: TrainingJob, resources: VerlResources) -> Overrides:
    return {
        "reward.num_workers": resources.workers,
        "reward.custom_reward_function.path": "pkg://dsrl.stages.train.verl.reward",
        "reward.custom_reward_function.name": "compute_score",
        "+reward.custom_reward_function.reward_kwargs.job": str(job.path(JOB)),
    }


def _trainer(job: TrainingJob, resources: VerlResources, *, validates: bool) -> Overrides:
    every = job.checkpoint_every
    return {
        "trainer.device": "cuda" if resources.gpus else "cpu",
        "trainer.nnodes": resources.nodes,
        "trainer.n_gpus_per_node": resources.per_node,
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


def _on_cpu(job: TrainingJob) -> Overrides:
    """Switch off what needs a GPU. Weights reach vLLM through our extension of its worker."""
    vllm = f"+{ROLLOUT}.engine_kwargs.vllm"
    config = {
        **_plain_attention(MODEL),
        f"{ACTOR}.use_torch_compile": False,
        f"{ACTOR}.fsdp_config.use_torch_compile": False,
        f"{REFERENCE}.fsdp_config.use_torch_compile": False,
        f"{ROLLOUT}.enforce_eager": True,
        f"{ROLLOUT}.free_cache_engine": False,
        f"+{ROLLOUT}.enable_sleep_mode": False,
        f"{ROLLOUT}.max_num_seqs": 64,
        f"{ROLLOUT}.checkpoint_engine.update_weights_bucket_megabytes": 64,
        f"{vllm}.worker_extension_cls": "dsrl.stages.train.verl.cpu_rollout.CpuWorkerExtension",
        f"{vllm}.distributed_executor_backend": "uni",
        "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1,
    }
    if job.algorithm == "ppo":
        config |= {f"{CRITIC}.fsdp.use_torch_compile": False, **_plain_attention(f"{CRITIC}.model")}
    return config


def _plain_attention(model: str) -> Overrides:
    return {
        f"{model}.use_remove_padding": False,
        f"{model}.enable_gradient_checkpointing": False,
        f"+{model}.override_config.attn_implementation": "sdpa",
    }
