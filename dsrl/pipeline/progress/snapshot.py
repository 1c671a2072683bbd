"""A snapshot of long work. Derived figures are computed only when they are shown."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

MIN_DONE = 5
"""Finished units before an ETA is shown."""


class Traffic(Protocol):
    """Traffic of one client (`dsrl.llm.ratelimit.controller.ClientStatus`)."""

    @property
    def in_flight(self) -> int: ...
    @property
    def limit(self) -> int: ...
    @property
    def ceiling(self) -> int: ...
    @property
    def requests(self) -> int: ...
    @property
    def throttled(self) -> int: ...
    @property
    def requests_per_second(self) -> float: ...
    @property
    def breaker(self) -> float | None: ...
    @property
    def batch(self) -> str | None: ...


class Spent(Protocol):
    """What the stage has spent so far (`dsrl.llm.Spending`)."""

    @property
    def requests(self) -> int: ...
    @property
    def input_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def usd(self) -> float | None: ...
    @property
    def known_usd(self) -> float: ...
    @property
    def hit_usd(self) -> float | None: ...


@dataclass(frozen=True)
class View:
    """A snapshot of one task."""

    label: str
    done: int
    total: int | None
    rate: float
    """Units per second over the last minutes."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Figures of the stage: `tried`, `rejected` (a count, or counts by reason), and others."""
    traffic: tuple[Traffic, ...] = ()
    spent: Spent | None = None

    @property
    def accepts(self) -> bool:
        """Whether the count is of accepted candidates among those tried."""
        return "tried" in self.figures

    @property
    def seconds_left(self) -> float | None:
        if not self.total or self.rate <= 0 or self.done < min(MIN_DONE, self.total):
            return None
        return max(0.0, (self.total - self.done) / self.rate)

    @property
    def projected_usd(self) -> float | None:
        """Expected dollars at the end of the stage, if the rest costs as much per unit as what is done."""
        if self.spent is None or not self.total or self.done < MIN_DONE:
            return None
        if self.spent.usd is None or self.spent.hit_usd is None:
            return None
        worth = self.spent.usd + self.spent.hit_usd
        return self.spent.usd + worth / self.done * max(0, self.total - self.done)

    @property
    def num_rejected(self) -> int | None:
        rejected = self.figures.get("rejected")
        return sum(rejected.values()) if isinstance(rejected, Mapping) else rejected

    @property
    def throttled_share(self) -> float:
        requests = sum(each.requests for each in self.traffic)
        return sum(each.throttled for each in self.traffic) / requests if requests else 0.0

    @property
    def seconds_down(self) -> float | None:
        return max((each.breaker for each in self.traffic if each.breaker is not None), default=None)


def numbers(view: View) -> dict[str, float]:
    """The snapshot as metrics of a tracker."""
    found: dict[str, Any] = {
        "accepted" if view.accepts else "done": view.done,
        "rejected": view.num_rejected,
        "tried": view.figures.get("tried"),
    }
    if view.traffic:
        found |= {
            "requests_per_second": sum(each.requests_per_second for each in view.traffic),
            "in_flight": sum(each.in_flight for each in view.traffic),
            "concurrency": sum(each.limit for each in view.traffic if each.batch is None),
            "throttled_share": view.throttled_share,
        }
    if view.spent is not None:
        names = ("requests", "input_tokens", "output_tokens", "usd")
        found |= {name: getattr(view.spent, name) for name in names}
        found["projected_usd"] = view.projected_usd
    finite = {name: value for name, value in found.items() if isinstance(value, (int, float)) and math.isfinite(value)}
    return {f"live/{view.label}/{name}": float(value) for name, value in finite.items()}
