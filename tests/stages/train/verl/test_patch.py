from typing import Any

import pytest

from dsrl.stages.train import Algorithm, Dapo, DrGrpo, Grpo, Gspo, Ppo, ReinforcePlusPlus, Remax, Rloo, Verl
from dsrl.stages.train.rl import ENGINES
from dsrl.stages.train.verl.config import ESTIMATORS, patch
from dsrl.stages.train.verl.config_schema import IGNORED, OURS, rendered

ALGORITHMS: tuple[Algorithm, ...] = (Grpo(), DrGrpo(), Ppo(), Rloo(), ReinforcePlusPlus(), Remax(), Dapo(), Gspo())


def patched(algorithm: Algorithm, **dials: Any) -> dict[str, Any]:
    return patch(Verl(algorithm=algorithm, **{"gpus": 0, **dials})._supposed(), 100, validates=True)


def test_every_algorithm_of_the_table_has_its_words() -> None:
    assert {algorithm.label for algorithm in ALGORITHMS} == set(ENGINES["verl"]) == set(ESTIMATORS)


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.label)
def test_our_dials_reach_the_keys_that_are_read(algorithm: Algorithm) -> None:
    found = patched(algorithm)
    assert found["actor_rollout_ref.actor.optim.lr"] == algorithm.learning_rate
    assert found["actor_rollout_ref.actor.optim.clip_grad"] == algorithm.max_grad_norm
    assert found["actor_rollout_ref.rollout.n"] == algorithm.responses_per_prompt
    assert found["data.train_batch_size"] == found["actor_rollout_ref.actor.ppo_mini_batch_size"] == 4
    assert found["actor_rollout_ref.actor.use_kl_loss"] == (algorithm.kl > 0)
    assert not {key.lstrip("+") for key in found} & set(IGNORED)


def test_what_sets_the_algorithms_apart() -> None:
    actor = "actor_rollout_ref.actor"
    assert patched(Grpo())[f"{actor}.loss_agg_mode"] == "seq-mean-token-mean"
    assert patched(DrGrpo())[f"{actor}.loss_scale_factor"] == 2048
    assert patched(DrGrpo())["algorithm.norm_adv_by_std_in_grpo"] is False
    assert patched(Gspo())[f"{actor}.policy_loss.loss_mode"] == "gspo"
    assert patched(Ppo())["critic.optim.lr"] == 1e-5
    assert patched(Remax())["trainer.use_v1"] is False
    dapo = patched(Dapo())
    assert (dapo[f"{actor}.clip_ratio_low"], dapo[f"{actor}.clip_ratio_high"]) == (0.2, 0.28)
    assert dapo["+reward.reward_kwargs.overlong_buffer_cfg.len"] == 410
    assert "+reward.reward_kwargs.max_resp_len" not in patched(Dapo(overlong=0.0))


def test_adapters_are_trained_only_where_they_are_asked_for() -> None:
    model = "actor_rollout_ref.model"
    assert f"{model}.lora_rank" not in patched(Grpo())
    found = patched(Grpo(), lora_rank=8, lora_alpha=16)
    assert (found[f"{model}.lora_rank"], found[f"{model}.lora_alpha"]) == (8, 16)


def test_trainer_and_rollouts_reckon_in_the_same_dtype() -> None:
    """Unsaid, veRL's engine would use bfloat16 beside rollouts in float32."""
    for gpus, dtype, short in ((0, "float32", "fp32"), (2, "bfloat16", "bf16")):
        found = patched(Grpo(), gpus=gpus)
        assert found["actor_rollout_ref.rollout.dtype"] == dtype
        for place in ("actor", "ref"):
            assert found[f"+actor_rollout_ref.{place}.fsdp_config.mixed_precision.param_dtype"] == short


def test_an_update_is_shared_out_among_the_devices() -> None:
    key = "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu"
    assert patched(Grpo())[key] == 64
    assert patched(Grpo(), gpus=4)[key] == 16
    assert patched(Grpo(), gpus=4, device_batch=6)[key] == 4


def test_nothing_of_the_cpu_is_said_where_there_is_a_gpu() -> None:
    assert any("dsrl.stages.train.verl.cpu" in str(value) for value in patched(Grpo()).values())
    assert not any("dsrl.stages.train.verl.cpu" in str(value) for value in patched(Grpo(), gpus=1).values())


def test_values_are_written_so_that_hydra_reads_them_back() -> None:
    assert rendered({"a.b": None, "c": [0.9, 0.99], "d": "x y", "e": True}) == [
        "a.b=null",
        "c=[0.9, 0.99]",
        'd="x y"',
        "e=true",
    ]
    assert OURS
