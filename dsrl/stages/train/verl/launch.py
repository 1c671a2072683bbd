"""veRL itself, in a process of its own: `python -m dsrl.stages.train.verl.launch job.json`.

Writes the rows and the whole config, has veRL check it, and runs its trainer on the Ray that the job names.
"""

import json
import os
import sys
import traceback
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsrl.core.errors import UserError
from dsrl.core.plugins import VARIABLE
from dsrl.models import huggingface
from dsrl.stages.train.job import FAILURE, TRAIN, TREE, VALIDATION, Job, read_job, read_rows
from dsrl.stages.train.schedule import order
from dsrl.stages.train.verl import nodes, process_tree
from dsrl.stages.train.verl.config import TRAIN_TABLE, VALIDATION_TABLE, Patch, patch
from dsrl.stages.train.verl.config_schema import compose_tree
from dsrl.stages.train.verl.failure_causes import cause
from dsrl.stages.train.verl.resources import NAME, Setup
from dsrl.stages.train.verl.rows import write_table
from dsrl.stages.train.verl.tables import encode, longest, shown_sizes, template

if TYPE_CHECKING:
    from omegaconf import DictConfig

CARRIED = (
    *("PYTHONPATH", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "TOKENIZERS_PARALLELISM", "HYDRA_FULL_ERROR"),
    *("VERL_FILE_LOGGER_PATH", "VERL_PLATFORM", "VERL_USE_EXTERNAL_MODULES", NAME),
    *("VLLM_CPU_KVCACHE_SPACE", "VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "HF_HOME", "HF_HUB_OFFLINE", VARIABLE),
)
"""Variables that Ray's workers need and don't inherit from this process. None holds a secret: they stand in `TREE`."""


def main() -> None:
    """Trains to the end. What broke it stands in the job's folder afterwards."""
    process_tree.die_with_parent()
    job = read_job(Path(sys.argv[1]))
    try:
        run(prepared(job), job)
    except Exception as error:
        path = job.path(FAILURE)
        if not path.exists():  # a grader that broke has said so already
            path.write_text(json.dumps({"reason": reason(error)}), encoding="utf-8")
        raise


def prepared(job: Job) -> "DictConfig":
    """Rows and config on disk, checked by veRL. Raises `UserError`."""
    from transformers import AutoConfig

    tokenizer = huggingface.load_tokenizer(job.model)
    rows, held_out = read_rows(job.path(TRAIN)), read_rows(job.path(VALIDATION))
    encoded = encode(tokenizer, job, (*rows, *held_out))
    config = AutoConfig.from_pretrained(
        job.model.path, revision=job.model.revision, trust_remote_code=job.model.trust_remote_code
    )
    limit = huggingface.context_limit(job.model, config)
    shown = shown_sizes(job, (*rows, *held_out))
    prompt_tokens = longest((*rows, *held_out), encoded, limit, job.settings["max_response_tokens"], shown)
    numbers = order(len(rows), job.steps * job.rows_per_step, job.seed)
    folder = Path(job.images) if shown else None
    write_table(job.path(TRAIN_TABLE), [rows[number] for number in numbers], "train", folder)
    write_table(job.path(VALIDATION_TABLE), held_out or rows[: job.rows_per_step], "validation", folder)
    setup = Setup(**job.settings["engine"])
    known = {
        **_asking(template(tokenizer, job, encoded)),
        **_attention(setup),
        "+ray_kwargs.ray_init.address": setup.address,
    }
    tree = compose_tree(patch(job, prompt_tokens, validates=bool(held_out), model=known), setup.overrides)
    _carry(tree, setup)
    _save(tree, job.path(TREE))
    validate(tree)
    return tree


def _asking(chat_template: str | None) -> Patch:
    return {} if chat_template is None else {"actor_rollout_ref.model.custom_chat_template": chat_template}


def _attention(setup: Setup) -> Patch:
    """veRL supposes flash-attn and the packing of sequences that needs it; its own lock doesn't bring it."""
    if not setup.gpus:
        return {}
    packed = find_spec("flash_attn") is not None
    name = "flash_attention_2" if packed else "sdpa"
    return {
        "actor_rollout_ref.model.use_remove_padding": packed,
        "+actor_rollout_ref.model.override_config.attn_implementation": name,
    }


def _carry(tree: "DictConfig", setup: Setup) -> None:
    """Into every worker, on whatever node: our variables, then what the user gives."""
    from omegaconf import OmegaConf

    variables = {name: os.environ[name] for name in CARRIED if name in os.environ}
    whole = OmegaConf.merge({"env_vars": variables}, setup.runtime_env)
    OmegaConf.update(tree, "ray_kwargs.ray_init.runtime_env", whole, merge=True, force_add=True)


def _save(tree: "DictConfig", path: Path) -> None:
    from omegaconf import OmegaConf

    OmegaConf.save(tree, path)


def validate(tree: "DictConfig", *, model_is_there: bool = True) -> None:
    """veRL's own look at a config, which needs no GPU; at that of a critic only with its model. Raises `UserError`."""
    from hydra.errors import HydraException
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn, get_policy_loss_fn
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    critic = model_is_there and need_critic(tree)
    parts = ["actor_rollout_ref.actor", "actor_rollout_ref.rollout", "algorithm", *(["critic"] if critic else [])]
    try:
        validate_config(config=tree, use_reference_policy=need_reference_policy(tree), use_critic=critic)
        for name in parts:
            omega_conf_to_dataclass(_at(tree, name))
        get_adv_estimator_fn(tree.algorithm.adv_estimator)
        get_policy_loss_fn(tree.actor_rollout_ref.actor.policy_loss.loss_mode)
    except (AssertionError, ValueError, TypeError, KeyError, HydraException) as error:
        raise UserError("veRL refuses these settings", got=str(error), next_step="see train.overrides") from error


def _at(tree: "DictConfig", key: str) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.select(tree, key)


def run(tree: "DictConfig", job: Job) -> None:
    """veRL's trainer, on nodes that can do their part; the older of the two where an algorithm needs it."""
    import ray
    from verl.trainer import main_ppo_v0
    from verl.trainer.main_ppo import TaskRunnerV1, run_ppo

    nodes.check(job, Setup(**job.settings["engine"]), _plain_runtime_env(tree))
    runner = TaskRunnerV1 if tree.trainer.use_v1 else main_ppo_v0.TaskRunner
    try:
        with nodes.Whereabouts(job):
            run_ppo(tree, task_runner_class=runner)
    finally:
        ray.shutdown()


def _plain_runtime_env(tree: "DictConfig") -> dict[str, Any]:
    from omegaconf import OmegaConf

    found: Any = OmegaConf.to_container(tree.ray_kwargs.ray_init.runtime_env, resolve=True)
    return {name: value for name, value in found.items() if value is not None}


def reason(error: Exception) -> str:
    """Why it broke, for the user: Ray puts the traceback of a worker into the text of its own error."""
    if isinstance(error, UserError):
        return str(error)
    text = str(error)
    if found := cause(f"{type(error).__name__}: {text}"):
        return found
    last = [line for line in text.splitlines() if line.strip()][-1:]
    return f"{type(error).__name__}: {''.join(last) or traceback.format_exc().splitlines()[-1]}"


if __name__ == "__main__":
    main()
