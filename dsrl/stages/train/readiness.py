"""Before training: what the measured pass rates say of it. A group whose replies all earn the same teaches nothing.

The pass rate p of a sample with k right replies of L is not k / L but uncertain: Beta(k + 1/2, L - k + 1/2), by
Jeffreys' prior. A group of n replies is all right or all wrong with probability E[p^n] + E[(1 - p)^n], which has a
closed form.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PRIOR = 0.5
STARVING = 0.5
"""Share of groups without a signal from which on a warning is given."""
HOPELESS = 0.9
"""Share of groups without a signal at which DAPO draws ten for one that it uses."""


@dataclass(frozen=True)
class Readiness:
    """What is to be expected of a training's groups."""

    samples: int
    """Those with a measured pass rate."""
    responses: int
    """Replies in a group."""
    zero_variance: float
    """Expected share of groups whose replies all earn the same."""
    prompts_per_step: int

    @property
    def signal_prompts(self) -> float:
        """Questions of an update that teach something."""
        return self.prompts_per_step * (1 - self.zero_variance)

    @property
    def accept(self) -> float:
        """Share of the groups that DAPO draws which it can use."""
        return 1 - self.zero_variance

    @property
    def drawn_prompts(self) -> int | None:
        """Questions that DAPO has to draw for an update; None: for ever."""
        return math.ceil(self.prompts_per_step / self.accept) if self.accept > 0 else None

    @property
    def batches(self) -> int | None:
        """The same in batches: what `rl.inflight_batches` would have to be to draw them at once."""
        return None if self.drawn_prompts is None else math.ceil(self.drawn_prompts / self.prompts_per_step)

    def plain(self) -> dict[str, Any]:
        """For `metrics.json`."""
        return {
            "samples": self.samples,
            "responses_per_prompt": self.responses,
            "zero_variance": round(self.zero_variance, 4),
            "signal_prompts": round(self.signal_prompts, 2),
            "dapo_accept": round(self.accept, 4),
            "dapo_drawn_prompts": self.drawn_prompts,
            "dapo_inflight_batches": self.batches,
        }


def readiness(counts: Sequence[tuple[int, int]], responses: int, prompts_per_step: int) -> Readiness | None:
    """Of samples with (right, valid) replies each; None where none was measured."""
    known = [(right, valid) for right, valid in counts if valid]
    if not known:
        return None
    shares = [without_signal(right, valid, responses) for right, valid in known]
    return Readiness(len(known), responses, sum(shares) / len(shares), prompts_per_step)


def without_signal(right: int, valid: int, responses: int) -> float:
    """Probability that all replies of a group are right, or all wrong."""
    a, b = right + PRIOR, valid - right + PRIOR
    return math.exp(_log_rise(a, a + b, responses)) + math.exp(_log_rise(b, a + b, responses))


def _log_rise(part: float, whole: float, count: int) -> float:
    """log E[p^count] for p ~ Beta(part, whole - part)."""
    return math.lgamma(part + count) - math.lgamma(part) - math.lgamma(whole + count) + math.lgamma(whole)


def words(found: Readiness, algorithm: str) -> str:
    """One line before the training."""
    text = (
        f"readiness: {found.zero_variance:.0%} of groups of {found.responses} replies are expected to teach nothing, "
        f"so {found.signal_prompts:.1f} of {found.prompts_per_step} questions an update do"
    )
    if algorithm != "dapo":
        return text
    drawn = "no end of" if found.drawn_prompts is None else f"about {found.drawn_prompts}"
    at_once = f"rl.inflight_batches={found.batches} draws them at once"
    return f"{text}; DAPO will draw {drawn} questions for each update ({at_once})"


def warning(found: Readiness, algorithm: str, compares: bool) -> str | None:
    """What would starve the training, and the cure."""
    cure = "select samples with a pass rate nearer to one half (select=learnable), or raise rl.responses_per_prompt"
    if algorithm == "dapo" and found.zero_variance >= HOPELESS:
        return f"DAPO would throw away {found.zero_variance:.0%} of what it draws; {cure}"
    if compares and found.zero_variance >= STARVING:
        return f"{found.zero_variance:.0%} of the groups are expected to teach nothing; {cure}"
    return None
