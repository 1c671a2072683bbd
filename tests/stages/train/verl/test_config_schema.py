import pytest

from dsrl.core.errors import UserError
from dsrl.infra.ray import LocalRay, SlurmRay
from dsrl.stages.train import Dapo, Grpo, Ppo, Verl
from dsrl.stages.train.verl.config_schema import check_overrides


@pytest.mark.parametrize(
    ("override", "advice"),
    [
        ("custom_reward_function.path=x", "grader"),
        ("reward_model.enable=true", "reward.reward_model"),
        ("actor_rollout_ref.actor.grad_clip=2", "rl.max_grad_norm"),
        ("algorithm.filter_groups.max_num_gen_batches=4", "rl.inflight_batches"),
        ("trainer.logger=[wandb]", "MLflow"),
        ("data.train_files=x.parquet", "`select`"),
        ("actor_rollout_ref.model.lora_rank=8", "train.lora_rank"),
        ("+ray_kwargs.ray_init.address=auto", "cluster=ray"),
        ("+ray_kwargs.ray_init.num_cpus=4", "cluster.cpus"),
        ("+ray_kwargs.ray_init.runtime_env.env_vars.A=1", "cluster.runtime_env"),
        ("trainer.total_epochs=3", "rl.epochs"),
        ("trainer.balance_batch", "key=value"),
    ],
)
def test_override_without_effect_or_of_a_key_of_dsrl_is_refused(override: str, advice: str) -> None:
    with pytest.raises(UserError, match=advice):
        check_overrides([override])


@pytest.mark.parametrize(
    "override",
    [
        "actor_rollout_ref.rollout.max_num_seqs=64",
        "reward.reward_manager.name=naive",
        "+actor_rollout_ref.rollout.engine_kwargs.vllm.block_size=16",
        "~data.image_key",
    ],
)
def test_other_keys_of_verl_are_allowed(override: str) -> None:
    check_overrides([override])


@pytest.mark.parametrize(
    ("stage", "named"),
    [
        (Verl(algorithm=Grpo(responses_per_prompt=1)), r"rl\.responses_per_prompt=1"),
        (Verl(algorithm=Dapo(), gpus=2, tensor_parallel=3), r"train\.tensor_parallel"),
        (Verl(algorithm=Grpo(prompts_per_step=3, responses_per_prompt=5), gpus=2), "15, 2 GPUs"),
        (Verl(algorithm=Grpo(), gpus=64), r"train\.gpus(.|\n)*64"),
        (Verl(algorithm=Grpo(), gpus=0, python="/no/such/python", cluster=LocalRay()), r"train\.python"),
        (Verl(algorithm=Grpo(), gpus=0), r"train\.cluster"),
        (Verl(algorithm=Grpo(), gpus=0, cluster=LocalRay()), "verl, vllm"),
    ],
)
def test_invalid_stage_is_refused_before_the_run(stage: Verl, named: str) -> None:
    with pytest.raises(UserError, match=named):
        stage.check()


def test_replies_must_be_divisible_by_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    with pytest.raises(UserError, match="63, 2 GPUs"):
        Verl(algorithm=Grpo(prompts_per_step=7, responses_per_prompt=9), gpus=0, cluster=SlurmRay()).check()


def test_critic_needs_no_groups() -> None:
    assert Ppo.min_responses == 1


def test_place_of_the_training_is_not_part_of_the_key() -> None:
    fields = ({}, {"python": "p"}, {"gpus": 8}, {"gpu_memory": 0.8}, {"offload": True}, {"cluster": LocalRay()})
    keys = {Verl(algorithm=Grpo(), **one).key({}) for one in fields}  # type: ignore[arg-type]
    assert len(keys) == 1
    assert Verl(algorithm=Grpo(), overrides=("trainer.balance_batch=false",)).key({}) not in keys
