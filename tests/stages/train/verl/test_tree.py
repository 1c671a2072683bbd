import pytest

from dsrl.core.errors import UserError
from dsrl.infra.ray import LocalRay
from dsrl.stages.train import Dapo, Grpo, Ppo, Trl, Verl
from dsrl.stages.train.verl.config_schema import refuse


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("custom_reward_function.path=x", "never read"),
        ("reward_model.enable=true", "reward.reward_model"),
        ("actor_rollout_ref.actor.grad_clip=2", "rl.max_grad_norm"),
        ("algorithm.filter_groups.max_num_gen_batches=4", "rl.inflight_batches"),
        ("trainer.logger=[wandb]", "MLflow"),
        ("data.train_files=x.parquet", "is set by dsrl"),
        ("actor_rollout_ref.model.lora_rank=8", "train.lora_rank"),
        ("+ray_kwargs.ray_init.address=auto", "cluster=ray"),
        ("+ray_kwargs.ray_init.num_cpus=4", "cluster.cpus"),
        ("+ray_kwargs.ray_init.runtime_env.env_vars.A=1", "cluster.runtime_env"),
        ("trainer.total_epochs=3", "rl.epochs"),
        ("trainer.balance_batch", "no value"),
    ],
)
def test_what_would_do_nothing_or_harm_is_refused_with_its_key(override: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        refuse([override])


@pytest.mark.parametrize(
    "override",
    [
        "actor_rollout_ref.rollout.max_num_seqs=64",
        "reward.reward_manager.name=naive",
        "+actor_rollout_ref.rollout.engine_kwargs.vllm.block_size=16",
        "~data.image_key",
    ],
)
def test_veRLs_own_knobs_pass(override: str) -> None:  # noqa: N802 - its name
    refuse([override])


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (Trl(algorithm=Ppo()), r"train=trl can't run rl=ppo(.|\n)*train=verl with rl=grpo, dr_grpo, ppo"),
        (Verl(algorithm=Grpo(responses_per_prompt=1)), r"rl\.responses_per_prompt=1"),
        (Verl(algorithm=Dapo(), gpus=2, tensor_parallel=3), r"train\.tensor_parallel"),
        (Verl(algorithm=Grpo(prompts_per_step=3, responses_per_prompt=5), gpus=2), "15, 2 GPUs"),
        (Verl(algorithm=Grpo(), gpus=64), r"train\.gpus: more than there are"),
        (Verl(algorithm=Grpo(), gpus=0, python="/no/such/python", cluster=LocalRay()), r"train\.python"),
        (Verl(algorithm=Grpo(), gpus=0), "train.cluster is missing"),
        (Verl(algorithm=Grpo(), gpus=0, cluster=LocalRay()), "must be installed in the trainer's environment"),
    ],
)
def test_what_cannot_work_is_refused_before_the_run(stage: Trl | Verl, words: str) -> None:
    with pytest.raises(UserError, match=words):
        stage.check()


def test_a_critic_needs_no_group() -> None:
    assert Ppo.least_replies == 1


def test_where_it_runs_changes_no_key() -> None:
    keys = {
        Verl(algorithm=Grpo(), **dials).key({})
        for dials in ({}, {"python": "p"}, {"gpus": 8}, {"gpu_memory": 0.8}, {"offload": True}, {"cluster": LocalRay()})
    }
    assert len(keys) == 1
    assert Verl(algorithm=Grpo(), overrides=("trainer.balance_batch=false",)).key({}) not in keys
