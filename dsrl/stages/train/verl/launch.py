"""veRL in a process of its own: `python -m dsrl.stages.train.verl.launch job.json`.

Writes the tables of rows and the complete config, has veRL validate it, and runs veRL's trainer on the job's Ray.
"""

import os
import sys
import traceback
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsrl.core.child_process import NO_TELEMETRY
from dsrl.core.errors import UserError
from dsrl.core.plugins import VARIABLE
from dsrl.models import huggingface
from dsrl.stages.train.failure_causes import error_cause
from dsrl.stages.train.job import TRAIN, VALIDATION, VERL_CONFIG, TrainingJob, read_job, read_rows
from dsrl.stages.train.rows import training_order
from dsrl.stages.train.verl import process_tree
from dsrl.stages.train.verl.config import MODEL, TRAIN_TABLE, VALIDATION_TABLE, verl_config
from dsrl.stages.train.verl.config_schema import compose_config
from dsrl.stages.train.verl.nodes import WorkerHostLog, check_nodes
from dsrl.stages.train.verl.resources import TRAINING_VARIABLE, VerlResources
from dsrl.stages.train.verl.rows import (
    choose_chat_template,
    encode_prompts,
    image_prompt_sizes,
    longest_prompt,
    write_table,
)

if TYPE_CHECKING:
    from omegaconf import DictConfig

WORKER_VARIABLES = (
    *("PYTHONPATH", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "TOKENIZERS_PARALLELISM", "HYDRA_FULL_ERROR"),
    *("VERL_FILE_LOGGER_PATH", "VERL_PLATFORM", "VERL_USE_EXTERNAL_MODULES", TRAINING_VARIABLE),
    *("VLLM_CPU_KVCACHE_SPACE", *NO_TELEMETRY, "CUDA_DEVICE_ORDER", "HF_HOME", "HF_HUB_OFFLINE", VARIABLE),
)
"""Variables that Ray's workers need but don't inherit from this process. They are saved in `verl.yaml`, so none may be
a secret."""


def main() -> None:
    """Train to the end; the reason of a failure is left in the job's folder."""
    process_tree.die_with_parent()
    job = read_job(Path(sys.argv[1]))
    try:
        run(prepare(job), job)
    except Exception as error:
        job.report_failure(describe_error(error))
        raise


def prepare(job: TrainingJob) -> "DictConfig":
    """Write the tables and the config, validated by veRL. Raises `UserError`."""
    from omegaconf import OmegaConf
    from transformers import AutoConfig

    rows, held_out = read_rows(job.path(TRAIN)), read_rows(job.path(VALIDATION))
    tokenizer = huggingface.load_tokenizer(job.model)
    model_config = AutoConfig.from_pretrained(
        job.model.path, revision=job.model.revision, trust_remote_code=job.model.trust_remote_code
    )
    encoded = encode_prompts(tokenizer, job, (*rows, *held_out))
    with_images = image_prompt_sizes(job, (*rows, *held_out))
    limit = huggingface.context_limit(job.model, model_config)
    prompt_tokens = longest_prompt((*rows, *held_out), encoded, limit, job.settings["max_response_tokens"], with_images)
    order = training_order(len(rows), job.steps * job.rows_per_step, job.seed)
    images = Path(job.images) if with_images else None
    write_table(job.path(TRAIN_TABLE), [rows[number] for number in order], "train", images)
    write_table(job.path(VALIDATION_TABLE), held_out or rows[: job.rows_per_step], "validation", images)

    resources = VerlResources(**job.settings["engine"])
    extra: dict[str, Any] = {"+ray_kwargs.ray_init.address": resources.address}
    if (chat_template := choose_chat_template(tokenizer, job, encoded)) is not None:
        extra[f"{MODEL}.custom_chat_template"] = chat_template
    if resources.gpus:
        # veRL assumes flash-attn and the packing of sequences that needs it; its own lock file doesn't install it
        packed = find_spec("flash_attn") is not None
        extra[f"{MODEL}.use_remove_padding"] = packed
        extra[f"+{MODEL}.override_config.attn_implementation"] = "flash_attention_2" if packed else "sdpa"
    config = compose_config(verl_config(job, prompt_tokens, validates=bool(held_out), model=extra), resources.overrides)
    variables = {name: os.environ[name] for name in WORKER_VARIABLES if name in os.environ}
    runtime_env = OmegaConf.merge({"env_vars": variables}, resources.runtime_env)
    OmegaConf.update(config, "ray_kwargs.ray_init.runtime_env", runtime_env, merge=True, force_add=True)
    OmegaConf.save(config, job.path(VERL_CONFIG))
    validate(config)
    return config


def validate(config: "DictConfig", *, model_exists: bool = True) -> None:
    """Run veRL's own validation, which needs no GPU; that of a critic only if its model exists. Raises `UserError`."""
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn, get_policy_loss_fn
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    critic = model_exists and need_critic(config)
    parts = ["actor_rollout_ref.actor", "actor_rollout_ref.rollout", "algorithm", *(["critic"] if critic else [])]
    try:
        validate_config(config=config, use_reference_policy=need_reference_policy(config), use_critic=critic)
        for name in parts:
            omega_conf_to_dataclass(OmegaConf.select(config, name))
        get_adv_estimator_fn(config.algorithm.adv_estimator)
        get_policy_loss_fn(config.actor_rollout_ref.actor.policy_loss.loss_mode)
    except (AssertionError, ValueError, TypeError, KeyError, HydraException) as error:
        raise UserError("veRL refuses these settings", got=str(error), next_step="see train.overrides") from error


def run(config: "DictConfig", job: TrainingJob) -> None:
    """Run veRL's trainer after checking the nodes; the older of its two trainers if the algorithm needs it."""
    import ray
    from omegaconf import OmegaConf
    from verl.trainer import main_ppo_v0
    from verl.trainer.main_ppo import TaskRunnerV1, run_ppo

    runtime_env: Any = OmegaConf.to_container(config.ray_kwargs.ray_init.runtime_env, resolve=True)
    given = {name: value for name, value in runtime_env.items() if value is not None}
    check_nodes(job, VerlResources(**job.settings["engine"]), given)
    runner = TaskRunnerV1 if config.trainer.use_v1 else main_ppo_v0.TaskRunner
    try:
        with WorkerHostLog(job):
            run_ppo(config, task_runner_class=runner)
    finally:
        ray.shutdown()


def describe_error(error: Exception) -> str:
    """Why the training failed, for the user. The text of Ray's errors contains the traceback of the worker."""
    if isinstance(error, UserError):
        return str(error)
    text = str(error)
    if cause := error_cause(f"{type(error).__name__}: {text}"):
        return cause
    last = [line for line in text.splitlines() if line.strip()][-1:]
    return f"{type(error).__name__}: {''.join(last) or traceback.format_exc().splitlines()[-1]}"


if __name__ == "__main__":
    main()
