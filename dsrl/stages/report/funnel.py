"""Rows through the stages: how many came in, how many went on, and why the rest did not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_REASONS = 6


@dataclass(frozen=True)
class Step:
    """One stage of the funnel."""

    stage: str
    rows_in: int
    rows_out: int
    rejected: int
    reasons: tuple[tuple[str, int], ...]
    """The most frequent first; the rest added up as `other`."""
    width: float
    """Rows that went on, as a share of the widest stage."""
    rejected_width: float


NOT_SAMPLES = ("train", "evaluate")
"""Stages whose rows are no longer candidates or samples, by the start of their names."""


def funnel(metrics: Mapping[str, Any]) -> tuple[Step, ...]:
    """The stages that report rows, in the order in which they ran."""
    stages = {name: rows for name, rows in (metrics.get("rows") or {}).items() if _counts(name, rows)}
    losses = {name: _reasons(rows.get("rejected") or {}) for name, rows in stages.items()}
    lost = {name: sum(count for _, count in reasons) for name, reasons in losses.items()}
    widest = max((rows["out"] + lost[name] for name, rows in stages.items()), default=0) or 1
    return tuple(
        Step(
            stage=name,
            rows_in=rows["in"],
            rows_out=rows["out"],
            rejected=lost[name],
            reasons=losses[name],
            width=rows["out"] / widest,
            rejected_width=lost[name] / widest,
        )
        for name, rows in stages.items()
    )


def _counts(name: str, rows: Mapping[str, Any]) -> bool:
    return "in" in rows and "out" in rows and not name.startswith(NOT_SAMPLES)


def _reasons(rejected: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    ranked = sorted(rejected.items(), key=lambda pair: (-pair[1], pair[0]))
    if len(ranked) <= MAX_REASONS:
        return tuple(ranked)
    rest = sum(count for _, count in ranked[MAX_REASONS:])
    return (*ranked[:MAX_REASONS], ("other reasons", rest))
