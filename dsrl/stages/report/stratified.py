"""Shares with their 95 % intervals, of plain and of stratified draws."""

from collections.abc import Sequence
from dataclasses import dataclass

from dsrl.core.statistics import wilson_interval

PSEUDO_ROWS = 4.0
"""Rows with the pooled share that smooth each stratum's own when its variance is reckoned: five rows without a fault
don't mean that there is none in their stratum."""


@dataclass(frozen=True)
class Stratum:
    """Rows of one kind: how many there are, how many were drawn and judged, and how many of those have the fault."""

    name: str
    size: int
    drawn: int
    faults: int

    @property
    def share(self) -> float:
        return self.faults / self.drawn

    @property
    def interval(self) -> tuple[float, float]:
        """A stratum that was judged as a whole is known."""
        return (self.share, self.share) if self.drawn >= self.size else wilson_interval(self.share, self.drawn)


@dataclass(frozen=True)
class Estimate:
    """A share of all rows, estimated from some of them."""

    value: float
    low: float
    high: float


def stratified(strata: Sequence[Stratum]) -> Estimate:
    """The strata's shares weighted by their sizes, with Wilson's interval at the effective number of trials: that whose
    simple draw would have the same variance. Strata that nobody judged are left out. Raises ValueError if all are."""
    known = [stratum for stratum in strata if stratum.drawn]
    if not known:
        raise ValueError("nothing was judged")
    total = sum(stratum.size for stratum in known)
    pooled = (sum(stratum.faults for stratum in known) + 0.5) / (sum(stratum.drawn for stratum in known) + 1)
    value = smooth = variance = 0.0
    for stratum in known:
        weight = stratum.size / total
        share = (stratum.faults + PSEUDO_ROWS * pooled) / (stratum.drawn + PSEUDO_ROWS)
        value += weight * stratum.share
        smooth += weight * share
        if stratum.drawn < stratum.size:
            variance += weight**2 * share * (1 - share) / stratum.drawn
    if variance == 0.0:
        return Estimate(value, value, value)
    return Estimate(value, *wilson_interval(value, smooth * (1 - smooth) / variance))
