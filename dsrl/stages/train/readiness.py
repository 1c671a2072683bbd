"""What the measured pass rates predict for RL. A group whose replies all earn the same reward has no gradient.

The pass rate p of a sample with k correct replies of L is not k / L but uncertain: p ~ Beta(k + 1/2, L - k + 1/2)
(Jeffreys' prior). A group of n replies is all correct or all wrong with probability E[p^n] + E[(1 - p)^n], which has a
closed form.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PRIOR = 0.5
WARNING_SHARE = 0.5
"""Share of groups without reward variance from which on a warning is given."""
DAPO_WARNING_SHARE = 0.9
"""The same for DAPO, which then draws ten groups for one that it uses."""


@dataclass(frozen=True)
class Readiness:
    """Expected reward variance of the groups of a training."""

    samples: int
    """Number of samples with a measured pass rate."""
    responses: int
    """Replies in a group."""
    zero_variance: float
    """Expected share of groups whose replies all earn the same reward."""
    prompts_per_step: int

    @property
    def signal_prompts(self) -> float:
        """Expected questions per update with a gradient."""
        return self.prompts_per_step * (1 - self.zero_variance)

    @property
    def accept(self) -> float:
        """Share of the groups drawn by DAPO that it can use."""
        return 1 - self.zero_variance

    @property
    def drawn_prompts(self) -> int | None:
        """Questions that DAPO draws for one update; None: without end."""
        return math.ceil(self.prompts_per_step / self.accept) if self.accept > 0 else None

    @property
    def batches(self) -> int | None:
        """The value of `rl.inflight_batches` that draws them all at once."""
        return None if self.drawn_prompts is None else math.ceil(self.drawn_prompts / self.prompts_per_step)

    def plain(self) -> dict[str, Any]:
        """The values for `metrics.json`."""
        return {
            "samples": self.samples,
            "responses_per_prompt": self.responses,
            "zero_variance": round(self.zero_variance, 4),
            "signal_prompts": round(self.signal_prompts, 2),
            "dapo_accept": round(self.accept, 4),
            "dapo_drawn_prompts": self.drawn_prompts,
            "dapo_inflight_batches": self.batches,
        }


def predict_readiness(counts: Sequence[tuple[int, int]], responses: int, prompts_per_step: int) -> Readiness | None:
    """`counts` has (correct, valid) replies per sample; None if no sample has valid ones."""
    known = [(correct, valid) for correct, valid in counts if valid]
    if not known:
        return None
    shares = [zero_variance_probability(correct, valid, responses) for correct, valid in known]
    return Readiness(len(known), responses, sum(shares) / len(shares), prompts_per_step)


def zero_variance_probability(correct: int, valid: int, responses: int) -> float:
    """Probability that all `responses` replies of a group are correct, or all wrong."""
    a, b = correct + PRIOR, valid - correct + PRIOR
    return math.exp(_log_moment(a, a + b, responses)) + math.exp(_log_moment(b, a + b, responses))


def _log_moment(a: float, total: float, n: int) -> float:
    """log E[p^n] for p ~ Beta(a, total - a)."""
    return math.lgamma(a + n) - math.lgamma(a) - math.lgamma(total + n) + math.lgamma(total)


def describe_readiness(readiness: Readiness, algorithm: str) -> str:
    """A line for the user before the training."""
    text = (
        f"readiness: {readiness.zero_variance:.0%} of groups of {readiness.responses} replies are expected to have no "
        f"reward variance, so {readiness.signal_prompts:.1f} of {readiness.prompts_per_step} questions per update count"
    )
    if algorithm != "dapo":
        return text
    drawn = "without end" if readiness.drawn_prompts is None else f"about {readiness.drawn_prompts} questions"
    at_once = f"rl.inflight_batches={readiness.batches} draws them at once"
    return f"{text}; DAPO will draw {drawn} for each update ({at_once})"


def readiness_warning(readiness: Readiness, algorithm: str, compares: bool) -> str | None:
    """A warning with its cure if most groups would have no reward variance. `compares`: whether the algorithm compares
    the replies of a group."""
    cure = "select samples with a pass rate nearer to one half (select=learnable), or raise rl.responses_per_prompt"
    if algorithm == "dapo" and readiness.zero_variance >= DAPO_WARNING_SHARE:
        return f"DAPO would discard {readiness.zero_variance:.0%} of the groups that it draws; {cure}"
    if compares and readiness.zero_variance >= WARNING_SHARE:
        return f"{readiness.zero_variance:.0%} of the groups are expected to have no reward variance; {cure}"
    return None
