"""dsrl's settings in veRL's config. veRL's own validation of every algorithm is in tests/e2e/test_verl.py."""

import dataclasses
from importlib import import_module
from typing import Any

import pytest

from dsrl.infra.ray import SlurmRay
from dsrl.stages.train import Algorithm, Dapo, DrGrpo, Grpo, Gspo, Ppo, ReinforcePlusPlus, Remax, Rloo, Verl
from dsrl.stages.train.rl import ENGINES
from dsrl.stages.train.verl.config import ESTIMATORS, verl_config
from dsrl.stages.train.verl.config_schema import IGNORED_KEYS, hydra_overrides

ALGORITHMS: tuple[Algorithm, ...] = (Grpo(), DrGrpo(), Ppo(), Rloo(), ReinforcePlusPlus(), Remax(), Dapo(), Gspo())


def config(algorithm: Algorithm, **fields: Any) -> dict[str, Any]:
    return verl_config(Verl(algorithm=algorithm, **{"gpus": 0, **fields}).assumed_job(), 100, validates=True)


def test_every_algorithm_has_an_estimator() -> None:
    assert {algorithm.label for algorithm in ALGORITHMS} == set(ENGINES["verl"]) == set(ESTIMATORS)


OTHER_VALUES: dict[str, Any] = {"max_steps": 7, "kl": 0.5, "top_p": 0.5, "adam_beta2": 0.5, "gae_lambda": 0.5}


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.label)
def test_every_hyper_parameter_reaches_verl(algorithm: Algorithm) -> None:
    """One that no key of veRL follows from would be ignored without notice."""
    names = {field.name for field in dataclasses.fields(algorithm)} - {"epochs"}  # the number of steps follows from it
    for name in names:
        value = OTHER_VALUES.get(name, 2 * (getattr(algorithm, name) or 0) or 1)
        assert config(dataclasses.replace(algorithm, **{name: value})) != config(algorithm), name


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.label)
def test_no_key_is_one_that_verl_never_reads(algorithm: Algorithm) -> None:
    assert not {key.lstrip("+") for key in config(algorithm)} & set(IGNORED_KEYS)


def test_reward_function_exists() -> None:
    found = config(Grpo())
    module = found["reward.custom_reward_function.path"].removeprefix("pkg://")
    assert callable(getattr(import_module(module), found["reward.custom_reward_function.name"]))


def test_adapters_are_configured_only_if_requested() -> None:
    assert not [key for key in config(Grpo()) if "lora" in key]
    found = config(Grpo(), lora_rank=8, lora_alpha=16)
    assert {value for key, value in found.items() if "lora" in key} == {8, 16}


@pytest.mark.parametrize(("gpus", "dtype", "short"), [(0, "float32", "fp32"), (2, "bfloat16", "bf16")])
def test_trainer_and_rollouts_use_the_same_dtype(gpus: int, dtype: str, short: str) -> None:
    """By default veRL's trainer would compute in bfloat16 beside rollouts in float32."""
    found = config(Grpo(), gpus=gpus)
    assert found["actor_rollout_ref.rollout.dtype"] == dtype
    for part in ("actor", "ref"):
        assert found[f"+actor_rollout_ref.{part}.fsdp_config.mixed_precision.param_dtype"] == short


def test_update_is_split_over_the_devices() -> None:
    key = "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu"
    assert config(Grpo())[key] == 64
    assert config(Grpo(), gpus=4)[key] == 16
    assert config(Grpo(), gpus=4, device_batch=6)[key] == 4


def test_all_nodes_of_a_slurm_allocation_train(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    found = config(Grpo(), cluster=SlurmRay())
    assert (found["trainer.nnodes"], found["trainer.n_gpus_per_node"]) == (2, 1)
    assert found["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu"] == 32


def test_cpu_platform_is_used_only_without_gpus() -> None:
    assert any("dsrl.stages.train.verl.cpu" in str(value) for value in config(Grpo()).values())
    assert not any("dsrl.stages.train.verl.cpu" in str(value) for value in config(Grpo(), gpus=1).values())


def test_values_are_quoted_for_hydra() -> None:
    assert hydra_overrides({"a.b": None, "c": [0.9, 0.99], "d": "x y", "e": True}) == [
        "a.b=null",
        "c=[0.9, 0.99]",
        'd="x y"',
        "e=true",
    ]
