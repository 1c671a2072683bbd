"""When to stop sampling: which samples can no longer be among the m with the lowest pass rate.

Given k correct of v valid replies so far, the correct ones among the r still to come follow the beta-binomial
distribution with Beta(k + 1/2, v - k + 1/2), Jeffreys' prior. A sample is selected if its final rate lies within the
band and is among the m lowest there. The cut-off below which those lie is taken so high that, by all these
distributions together, more than m samples end below it in nineteen of twenty cases; a sample's risk is the probability
that its rate ends within the band and not above the cut-off. Samples stop in the order of their risk as long as all
risks taken add up to no more than `error` times m: of the m selected by full counts, at most that share is expected to
be missed.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

PRIOR = 0.5
QUANTILE = 1.645
"""Normal quantile of nineteen in twenty cases."""


@dataclass(frozen=True)
class PartialCount:
    """A sample's replies so far."""

    correct: int
    valid: int
    remaining: int
    """Replies still to come, if it continues."""


@dataclass(frozen=True)
class SelectionGoal:
    """What the samples are scored for."""

    m: int
    """Samples that will be selected, with some to spare."""
    low: float
    high: float
    """Both ends of the band are excluded."""
    error: float


def samples_to_stop(
    counts: Sequence[PartialCount], running: Sequence[int], goal: SelectionGoal, spent: float, share: float
) -> dict[int, float]:
    """Which of the running samples may stop, each with its risk. `spent` is the sum of the risks taken so far, `share`
    the part of the whole allowance that may be spent by now."""
    top = cutoff(counts, goal)
    if top is None:
        return {}
    risks = sorted((selection_risk(counts[place], goal, top), place) for place in running)
    allowance, stopped = goal.error * goal.m * share - spent, {}
    for risk, place in risks:
        if risk > allowance:
            break
        allowance -= risk
        stopped[place] = risk
    return stopped


def cutoff(counts: Sequence[PartialCount], goal: SelectionGoal) -> float | None:
    """The lowest rate at or below which m samples of the band will end with near certainty; None if there may be too
    few. Only samples already above the band's low end count: no prior knows how many are never solved."""
    whole = max(count.valid + count.remaining for count in counts)
    multiplicity = Counter(count for count in counts if count.correct > goal.low * (count.valid + count.remaining))
    for number in range(math.floor(goal.low * whole) + 1, math.ceil(goal.high * whole)):
        shares = {count: selection_risk(count, goal, number / whole) for count in multiplicity}
        expected = sum(share * multiplicity[count] for count, share in shares.items())
        spread = math.sqrt(sum(share * (1 - share) * multiplicity[count] for count, share in shares.items()))
        if expected - QUANTILE * spread >= goal.m:
            return number / whole
    return None


def selection_risk(count: PartialCount, goal: SelectionGoal, top: float) -> float:
    """Probability that the final rate lies within the band and not above `top`."""
    whole = count.valid + count.remaining
    if not whole:
        return 1.0
    risk = sum(
        probability
        for more, probability in enumerate(betabinom_pmf(count.correct, count.valid, count.remaining))
        if goal.low < (rate := (count.correct + more) / whole) < goal.high and rate <= top
    )
    return min(1.0, risk)  # the probabilities add up to 1 only within rounding


@cache
def betabinom_pmf(correct: int, valid: int, remaining: int) -> tuple[float, ...]:
    """Probabilities of 0 to `remaining` correct replies among those still to come."""
    from scipy.stats import betabinom

    pmf = betabinom.pmf(range(remaining + 1), remaining, correct + PRIOR, valid - correct + PRIOR)
    return tuple(pmf.tolist())
