"""Confidence intervals of shares, and quantiles of Student's t distribution."""

import math

Z = 1.959964
"""Standard normal quantile of a two-sided 95 % interval."""


def wilson_interval(share: float, trials: float, z: float = Z) -> tuple[float, float]:
    """Wilson's score interval of a share, `z` standard errors wide to each side; (0, 1) without trials.

    `scipy.stats.binomtest` computes the same for whole numbers. Here `trials` may be fractional: the effective sample
    size of a stratified draw is."""
    if trials <= 0:
        return 0.0, 1.0
    spread = z * z / trials
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt((share * (1 - share) + spread / 4) / trials) / (1 + spread)
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def t_quantile(degrees: int, level: float = 0.95) -> float:
    """Half-width of a two-sided interval in standard errors, by Student's t; infinite without degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + level) / 2)) if degrees > 0 else math.inf
