"""veRL's whole config: its own tree, our patch, then the user's overrides. A key that it doesn't have is refused, and
so is one that it takes and never reads. Needs Hydra and veRL's files, neither torch nor a GPU."""

import json
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsrl.core.errors import UserError
from dsrl.stages.train.verl.config import Patch

if TYPE_CHECKING:
    from omegaconf import DictConfig

VERSION = "0.9.1"
"""Of veRL, whose keys all this is about."""
IGNORED = {
    "custom_reward_function.": "the reward is the task's grader",
    "reward_model.": "give reward.reward_model.* instead",
    "sandbox_fusion.": "give reward.sandbox_fusion.* instead",
    "actor_rollout_ref.actor.grad_clip": "give rl.max_grad_norm instead",
    "critic.grad_clip": "give rl.max_grad_norm instead",
    "algorithm.filter_groups.max_num_gen_batches": "give rl.inflight_batches, the limit that is read",
}
"""Key, or beginning of keys, that veRL composes without a word and never reads -> what to do."""
OURS = {
    "data.train_files": "the rows come from the stage `select`",
    "data.val_files": "held-out rows: train.validation",
    "data.train_batch_size": "give rl.prompts_per_step",
    "data.gen_batch_size": "it is rl.prompts_per_step; for rl=dapo veRL makes it 1 and reads rl.inflight_batches",
    "data.max_prompt_length": "it is the longest prompt",
    "data.max_response_length": "give rl.max_response_tokens",
    "data.shuffle": "the rows stand in the order of train.seed",
    "data.prompt_key": "dsrl writes the rows",
    "data.reward_fn_key": "dsrl writes the rows",
    "actor_rollout_ref.model.path": "give model=...",
    "actor_rollout_ref.model.custom_chat_template": "give model.prompt_format",
    "actor_rollout_ref.model.lora": "give train.lora_rank and train.lora_alpha",
    "actor_rollout_ref.rollout.name": "rollouts are drawn by vLLM",
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
    "trainer.logger": "dsrl reads the trainer's file and tells MLflow itself",
    "trainer.total_": "give rl.epochs or rl.max_steps",
    "trainer.save_freq": "give train.checkpoint_every",
    "trainer.test_freq": "give train.checkpoint_every",
    "trainer.val_": "give train.validation",
    "trainer.resume_": "a killed training is resumed by dsrl",
    "trainer.default_": "checkpoints rest in the store's work folder",
    "trainer.max_": "dsrl keeps the best and the last",
    "trainer.use_v1": "it follows from rl=...",
    "trainer.device": "give train.gpus",
    "trainer.n_gpus_per_node": "give train.gpus",
    "trainer.nnodes": "all nodes of the Ray train: cluster=slurm slurm.nodes=...",
    "ray_kwargs.ray_init.address": "give cluster=local, cluster=ray or cluster=slurm",
    "ray_kwargs.ray_init.num_": "give cluster.cpus and cluster.gpus",
    "ray_kwargs.ray_init.runtime_env": "give cluster.runtime_env",
}
"""Key, or beginning of keys, on which dsrl relies or for which it has a dial -> what to do."""


def refuse(overrides: Iterable[str]) -> None:
    """Raises `UserError` for an override that would do nothing, or break what dsrl does."""
    for override in overrides:
        key, mark, _ = override.lstrip("+~").partition("=")
        if not mark and not override.startswith("~"):
            raise UserError(
                "train.overrides: no value", got=override, next_step="write veRL's key as key=value, or +key=value"
            )
        for table, what in ((IGNORED, "is taken by veRL and never read"), (OURS, "is set by dsrl")):
            found = [cure for known, cure in table.items() if _covers(known, key)]
            if found:
                raise UserError(f"train.overrides: {key} {what}", got=override, next_step=found[0])


def _covers(known: str, key: str) -> bool:
    return (
        key == known
        or key.startswith(known if known.endswith((".", "_")) else f"{known}.")
        or (known.endswith(".lora") and key.startswith(known))
    )


def config_folder() -> Path:
    """Where veRL keeps its tree; found without importing it, which takes many seconds."""
    spec = find_spec("verl")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("veRL is not installed in the trainer's environment", next_step="see docs/training_verl.md")
    return Path(spec.submodule_search_locations[0]) / "trainer" / "config"


def compose_tree(ours: Patch, overrides: Iterable[str] = ()) -> "DictConfig":
    """The whole config. Raises `UserError` naming a key of `overrides` that veRL doesn't have."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException

    given = list(overrides)
    refuse(given)
    with initialize_config_dir(str(config_folder()), version_base=None):
        plain = compose("ppo_trainer")
        try:
            tree = compose("ppo_trainer", overrides=[*rendered(ours), *given])
        except HydraException as error:
            raise _unknown(error, given) from error
    _check_types(plain, tree, given)
    return tree


def rendered(ours: Patch) -> list[str]:
    """As overrides of Hydra's, which refuses a key that isn't there; a merged file would add it in silence."""
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in ours.items()]


def _unknown(error: Exception, given: list[str]) -> UserError:
    reasons = []
    cause: BaseException | None = error
    while cause is not None:
        reasons += str(cause).splitlines()
        cause = cause.__cause__
    named = [override for override in given if any(override.lstrip("+~").partition("=")[0] in line for line in reasons)]
    what = f"train.overrides: {named[0]}" if named else f"veRL {VERSION} refuses a setting of dsrl's"
    return UserError(
        what, got=" ".join(reasons[:3]), next_step="keys are those of veRL's trainer/config/ppo_trainer.yaml"
    )


def _check_types(plain: "DictConfig", tree: "DictConfig", given: Iterable[str]) -> None:
    """veRL's tree has no types of its own: a word where its default is a number would break it much later."""
    from omegaconf import OmegaConf

    for override in given:
        key = override.lstrip("+~").partition("=")[0]
        default, value = (OmegaConf.select(where, key, throw_on_missing=False) for where in (plain, tree))
        if not _same_kind(default, value):
            raise UserError(
                f"train.overrides: {key} takes a {type(default).__name__}", got=override, allowed=f"such as {default}"
            )


def _same_kind(default: Any, value: Any) -> bool:
    if default is None or value is None or not isinstance(default, (bool, int, float)):
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    return isinstance(value, (int, float))
