"""RL algorithms and their hyper-parameters, independent of the engine that runs them."""

from typing import ClassVar

from pydantic import Field

from dsrl.core.component import Component, component


@component(None)
class Algorithm(Component):
    """Hyper-parameters of every policy-gradient algorithm. The defaults are those of the paper (section 3.2)."""

    label: ClassVar[str]
    """Name in reports and in the trained model's name."""
    min_responses: ClassVar[int] = 2
    """Smallest group of replies to one question that has an advantage."""

    learning_rate: float = Field(default=1e-6, gt=0)
    prompts_per_step: int = Field(default=4, gt=0)
    """Questions in one update."""
    responses_per_prompt: int = Field(default=16, gt=0)
    """Replies to each question (the group size)."""
    temperature: float = Field(default=1.2, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    epochs: int = Field(default=5, gt=0)
    max_steps: int | None = Field(default=None, gt=0)
    """Number of updates; overrides `epochs`."""
    max_response_tokens: int = Field(default=2048, gt=0)
    kl: float = Field(default=0.01, ge=0)
    """Weight of the KL divergence from the base model in the loss; at 0 no reference model is loaded."""
    clip: float = Field(default=0.2, gt=0)
    """Clip range epsilon of the probability ratio."""
    warmup_steps: int = Field(default=0, ge=0)
    """Updates of linear warm-up before the constant learning rate."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    adam_beta2: float = Field(default=0.999, gt=0, lt=1)


@component("rl.grpo")
class Grpo(Algorithm):
    """Group relative policy optimisation (arXiv 2402.03300): advantage = (reward - group mean) / group deviation. The
    loss is averaged over the tokens of a reply, then over replies."""

    label: ClassVar[str] = "grpo"


@component("rl.dr_grpo")
class DrGrpo(Algorithm):
    """GRPO without the normalisation by group deviation and by reply length (arXiv 2503.20783)."""

    label: ClassVar[str] = "dr_grpo"


@component("rl.ppo")
class Ppo(Algorithm):
    """Proximal policy optimisation (arXiv 1707.06347) with a critic of the model's size; advantages by GAE (arXiv
    1506.02438)."""

    label: ClassVar[str] = "ppo"
    min_responses: ClassVar[int] = 1

    critic_learning_rate: float = Field(default=1e-5, gt=0)
    critic_warmup_steps: int = Field(default=0, ge=0)
    """Updates of the critic alone, before the policy learns."""
    gae_lambda: float = Field(default=1.0, ge=0, le=1)


@component("rl.rloo")
class Rloo(Algorithm):
    """REINFORCE leave-one-out (arXiv 2402.14740): the baseline is the mean reward of the group's other replies."""

    label: ClassVar[str] = "rloo"


@component("rl.reinforce_plus_plus")
class ReinforcePlusPlus(Algorithm):
    """REINFORCE++ (arXiv 2501.03262): rewards are whitened over the whole batch, without groups."""

    label: ClassVar[str] = "reinforce_plus_plus"
    min_responses: ClassVar[int] = 1


@component("rl.remax")
class Remax(Algorithm):
    """ReMax (arXiv 2310.10505): the baseline is the reward of an additional greedy reply."""

    label: ClassVar[str] = "remax"
    min_responses: ClassVar[int] = 1


@component("rl.dapo")
class Dapo(Algorithm):
    """DAPO (arXiv 2503.14476): groups without reward variance are resampled, the upper clip range is wider, the loss is
    averaged over all tokens of the batch, and replies near the length limit are penalised. No KL term."""

    label: ClassVar[str] = "dapo"

    kl: float = Field(default=0.0, ge=0)
    clip_high: float = Field(default=0.28, gt=0)
    """Upper clip range; `clip` is the lower one."""
    overlong: float = Field(default=0.2, ge=0, le=1)
    """Last share of `max_response_tokens` over which the penalty grows from 0 to 1; 0: no penalty."""
    inflight_batches: int = Field(default=1, gt=0)
    """Batches of questions in flight at the same time: the only limit that veRL 0.9.1 reads."""


@component("rl.gspo")
class Gspo(Algorithm):
    """GSPO (arXiv 2507.18071): the clipped ratio is that of whole replies, so the clip range is narrow."""

    label: ClassVar[str] = "gspo"

    kl: float = Field(default=0.0, ge=0)
    clip: float = Field(default=3e-4, gt=0)
    clip_high: float = Field(default=4e-4, gt=0)
    """Upper clip range; `clip` is the lower one."""
