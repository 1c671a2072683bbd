"""RL algorithms in our own words; the engines translate them into theirs."""

from typing import ClassVar

from pydantic import Field

from dsrl.part import Part, part


@part
class Algorithm(Part):
    """What all policy-gradient algorithms share. The defaults are the paper's (section 3.2)."""

    label: ClassVar[str]
    """Its name in reports and in the trained model's name."""

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


@part
class Grpo(Algorithm):
    """Group relative policy optimisation (arXiv 2402.03300): rewards less their group's mean, over its deviation. The
    loss is the mean over the tokens of a reply, then over replies."""

    label: ClassVar[str] = "grpo"


@part
class DrGrpo(Algorithm):
    """GRPO without its two normalisations (arXiv 2503.20783), by deviation and by reply length."""

    label: ClassVar[str] = "dr_grpo"
