"""RL algorithms in our own words; the engines translate them into theirs."""

from typing import ClassVar

from pydantic import Field

from dsrl.core.component import Component, component


@component(None)
class Algorithm(Component):
    """What all policy-gradient algorithms share. The defaults are the paper's (section 3.2)."""

    label: ClassVar[str]
    """Its name in reports and in the trained model's name."""
    least_replies: ClassVar[int] = 2
    """Replies to a question without which there is nothing to compare."""

    learning_rate: float = Field(default=1e-6, gt=0)
    prompts_per_step: int = Field(default=4, gt=0)
    """Questions in one update."""
    responses_per_prompt: int = Field(default=16, gt=0)
    """Replies to each of them, compared with one another."""
    temperature: float = Field(default=1.2, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    epochs: int = Field(default=5, gt=0)
    """Times that each sample is seen."""
    max_steps: int | None = Field(default=None, gt=0)
    """Takes the place of `epochs`: so many updates."""
    max_response_tokens: int = Field(default=2048, gt=0)
    kl: float = Field(default=0.01, ge=0)
    """Weight of the divergence from the base model in the loss; at 0 no copy of the base model is held."""
    clip: float = Field(default=0.2, gt=0)
    """How far one update may move the probability of a token, as a share."""
    warmup_steps: int = Field(default=0, ge=0)
    """Updates over which the learning rate rises to its constant value."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    adam_beta2: float = Field(default=0.999, gt=0, lt=1)


@component("rl.grpo")
class Grpo(Algorithm):
    """Group relative policy optimisation (arXiv 2402.03300): rewards less their group's mean, over its deviation. The
    loss is the mean over the tokens of a reply, then over replies."""

    label: ClassVar[str] = "grpo"


@component("rl.dr_grpo")
class DrGrpo(Algorithm):
    """GRPO without its two normalisations (arXiv 2503.20783), by deviation and by reply length."""

    label: ClassVar[str] = "dr_grpo"


@component("rl.ppo")
class Ppo(Algorithm):
    """Proximal policy optimisation (arXiv 1707.06347): a critic, as large as the model, foretells the reward of every
    token; advantages by GAE (arXiv 1506.02438)."""

    label: ClassVar[str] = "ppo"
    least_replies: ClassVar[int] = 1

    critic_learning_rate: float = Field(default=1e-5, gt=0)
    critic_warmup_steps: int = Field(default=0, ge=0)
    """Updates of the critic alone, before the model learns."""
    gae_lambda: float = Field(default=1.0, ge=0, le=1)


@component("rl.rloo")
class Rloo(Algorithm):
    """REINFORCE leave-one-out (arXiv 2402.14740): rewards less the mean of the group's others."""

    label: ClassVar[str] = "rloo"


@component("rl.reinforce_plus_plus")
class ReinforcePlusPlus(Algorithm):
    """REINFORCE++ (arXiv 2501.03262): rewards whitened over the whole batch, without groups."""

    label: ClassVar[str] = "reinforce_plus_plus"
    least_replies: ClassVar[int] = 1


@component("rl.remax")
class Remax(Algorithm):
    """ReMax (arXiv 2310.10505): rewards less that of the greedy reply, which is drawn besides."""

    label: ClassVar[str] = "remax"
    least_replies: ClassVar[int] = 1


@component("rl.dapo")
class Dapo(Algorithm):
    """DAPO (arXiv 2503.14476): groups whose rewards are all equal are drawn anew, more room to clip upwards, the loss a
    mean over all tokens of the batch, and a growing penalty near the longest reply. No divergence from the base
    model."""

    label: ClassVar[str] = "dapo"

    kl: float = Field(default=0.0, ge=0)
    clip_high: float = Field(default=0.28, gt=0)
    """As `clip`, upwards."""
    overlong: float = Field(default=0.2, ge=0, le=1)
    """Share of `max_response_tokens`, at its end, over which the penalty grows from 0 to 1. At 0 there is none."""
    inflight_batches: int = Field(default=1, gt=0)
    """Batches of questions that are drawn at the same time: the only limit that veRL 0.9.1 reads."""


@component("rl.gspo")
class Gspo(Algorithm):
    """GSPO (arXiv 2507.18071): the ratio that is clipped is that of whole replies, so the bounds are narrow."""

    label: ClassVar[str] = "gspo"

    kl: float = Field(default=0.0, ge=0)
    clip: float = Field(default=3e-4, gt=0)
    clip_high: float = Field(default=4e-4, gt=0)
    """As `clip`, upwards."""
