"""veRL's complete config: its defaults, our settings, then the user's overrides. Refuses keys that veRL doesn't have,
and keys that it accepts but never reads. Needs Hydra and veRL's files, but neither torch nor a GPU."""

import json
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsrl.core.errors import UserError
from dsrl.stages.train.verl.config import Overrides

if TYPE_CHECKING:
    from omegaconf import DictConfig

VERSION = "0.9.1"
"""The version of veRL whose keys are meant."""
IGNORED_KEYS = {
    "custom_reward_function.": "the reward is the task's grader",
    "reward_model.": "give reward.reward_model.* instead",
    "sandbox_fusion.": "give reward.sandbox_fusion.* instead",
    "actor_rollout_ref.actor.grad_clip": "give rl.max_grad_norm instead",
    "critic.grad_clip": "give rl.max_grad_norm instead",
    "algorithm.filter_groups.max_num_gen_batches": "give rl.inflight_batches, the limit that is read",
}
"""Key or prefix that veRL accepts but never reads -> what to do instead."""
OWN_KEYS = {
    "data.train_files": "the rows come from the stage `select`",
    "data.val_files": "held-out rows: train.validation",
    "data.train_batch_size": "give rl.prompts_per_step",
    "data.gen_batch_size": "it is rl.prompts_per_step; for rl=dapo veRL makes it 1 and reads rl.inflight_batches",
    "data.max_prompt_length": "it is the longest prompt",
    "data.max_response_length": "give rl.max_response_tokens",
    "data.shuffle": "the order of the rows follows from train.seed",
    "data.prompt_key": "dsrl writes the rows",
    "data.reward_fn_key": "dsrl writes the rows",
    "actor_rollout_ref.model.path": "give model=...",
    "actor_rollout_ref.model.custom_chat_template": "give model.prompt_format",
    "actor_rollout_ref.model.lora": "give train.lora_rank and train.lora_alpha",
    "actor_rollout_ref.rollout.name": "rollouts always use vLLM",
    "actor_rollout_ref.rollout.n": "give rl.responses_per_prompt",
    "actor_rollout_ref.rollout.do_sample": "give rl.temperature",
    "actor_rollout_ref.rollout.temperature": "give rl.temperature",
    "actor_rollout_ref.rollout.top_p": "give rl.top_p",
    "actor_rollout_ref.rollout.val_kwargs.": "give train.validation_replies and train.validation_temperature",
    "actor_rollout_ref.actor.checkpoint.": "dsrl resumes and exports them",
    "actor_rollout_ref.actor.optim.lr": "give rl.learning_rate",
    "actor_rollout_ref.actor.kl_loss_coef": "give rl.kl",
    "actor_rollout_ref.actor.use_kl_loss": "give rl.kl",
    "algorithm.adv_estimator": "give rl=...",
    "reward.custom_reward_function.": "the reward is the task's grader",
    "trainer.logger": "dsrl reads the trainer's metrics file and logs to MLflow itself",
    "trainer.total_": "give rl.epochs or rl.max_steps",
    "trainer.save_freq": "give train.checkpoint_every",
    "trainer.test_freq": "give train.checkpoint_every",
    "trainer.val_": "give train.validation",
    "trainer.resume_": "dsrl resumes a killed training",
    "trainer.default_": "checkpoints are kept in the store's work folder",
    "trainer.max_": "dsrl keeps the best and the last",
    "trainer.use_v1": "it follows from rl=...",
    "trainer.device": "give train.gpus",
    "trainer.n_gpus_per_node": "give train.gpus",
    "trainer.nnodes": "all nodes of the Ray take part: cluster=slurm slurm.nodes=...",
    "ray_kwargs.ray_init.address": "give cluster=local, cluster=ray or cluster=slurm",
    "ray_kwargs.ray_init.num_": "give cluster.cpus and cluster.gpus",
    "ray_kwargs.ray_init.runtime_env": "give cluster.runtime_env",
}
"""Key or prefix that dsrl sets itself -> what to do instead."""


def check_overrides(overrides: Iterable[str]) -> None:
    """Raise `UserError` for an override that would have no effect, or that sets a key of dsrl's."""
    for override in overrides:
        key, equals, _ = override.lstrip("+~").partition("=")
        if not equals and not override.startswith("~"):
            raise UserError(
                "train.overrides: no value", got=override, next_step="write veRL's key as key=value, or +key=value"
            )
        for keys, problem in ((IGNORED_KEYS, "is accepted by veRL but never read"), (OWN_KEYS, "is set by dsrl")):
            advice = [text for prefix, text in keys.items() if _matches(key, prefix)]
            if advice:
                raise UserError(f"train.overrides: {key} {problem}", got=override, next_step=advice[0])


def _matches(key: str, prefix: str) -> bool:
    """`model.lora` also stands for `model.lora_rank` and its like."""
    if key == prefix or (prefix.endswith(".lora") and key.startswith(prefix)):
        return True
    return key.startswith(prefix if prefix.endswith((".", "_")) else f"{prefix}.")


def config_folder() -> Path:
    """The folder of veRL's config files; found without importing veRL, which takes many seconds."""
    spec = find_spec("verl")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("veRL is not installed in the trainer's environment", next_step="see docs/training_verl.md")
    return Path(spec.submodule_search_locations[0]) / "trainer" / "config"


def compose_config(config: Overrides, overrides: Iterable[str] = ()) -> "DictConfig":
    """The complete config. Raises `UserError` naming an override whose key or type veRL doesn't have."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException

    overrides = list(overrides)
    check_overrides(overrides)
    with initialize_config_dir(str(config_folder()), version_base=None):
        defaults = compose("ppo_trainer")
        try:
            composed = compose("ppo_trainer", overrides=[*hydra_overrides(config), *overrides])
        except HydraException as error:
            raise _compose_error(error, overrides) from error
    _check_types(defaults, composed, overrides)
    return composed


def hydra_overrides(config: Overrides) -> list[str]:
    """As overrides, Hydra refuses unknown keys; merging a file would silently add them."""
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in config.items()]


def _compose_error(error: Exception, overrides: list[str]) -> UserError:
    """Hydra's error with the override that it mentions anywhere in the chain of its causes."""
    lines: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        lines += str(cause).splitlines()
        cause = cause.__cause__
    named = [one for one in overrides if any(one.lstrip("+~").partition("=")[0] in line for line in lines)]
    what = f"train.overrides: {named[0]}" if named else f"veRL {VERSION} refuses a setting of dsrl's"
    return UserError(what, got=" ".join(lines[:3]), next_step="the keys are in veRL's trainer/config/ppo_trainer.yaml")


def _check_types(defaults: "DictConfig", composed: "DictConfig", overrides: Iterable[str]) -> None:
    """veRL's config is untyped: a string in place of a number would fail much later."""
    from omegaconf import OmegaConf

    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        default, value = (OmegaConf.select(config, key, throw_on_missing=False) for config in (defaults, composed))
        if not _same_type(default, value):
            raise UserError(
                f"train.overrides: {key} takes a {type(default).__name__}", got=override, allowed=f"such as {default}"
            )


def _same_type(default: Any, value: Any) -> bool:
    """Integers and floats count as one type; anything may be None."""
    if default is None or value is None or not isinstance(default, (bool, int, float)):
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    return isinstance(value, (int, float))
