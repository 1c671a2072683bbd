"""Costs of stages for `metrics.json`: in this run, and over all runs that paid for the result."""

from collections.abc import Mapping
from typing import Any

Counters = Mapping[str, Any]
"""Counters of one role, as the ledger has them."""
PAID_TO_CACHED = {
    "completions": "hit_completions",
    "input_tokens": "hit_input_tokens",
    "cached_tokens": "hit_cached_tokens",
    "output_tokens": "hit_output_tokens",
    "usd": "hit_usd",
}
"""Counter of what this run paid for -> counter of cache hits, which were paid for earlier."""


def book(metrics: dict[str, Any], stage: str, calls: Mapping[str, Counters], made: Mapping[str, Counters]) -> None:
    """Record a stage: the `calls` of this run, and those of the run that `made` the result (possibly this one)."""
    metrics.setdefault("calls_by_stage", {})[stage] = dict(calls)
    metrics.setdefault("cost", {})[stage] = {role: total_cost(counters) for role, counters in made.items()}


def total_cost(calls: Counters) -> dict[str, Any]:
    """What a result cost in all: paid calls plus cache hits. The number of HTTP requests behind cache hits is unknown,
    and so is a sum with an unknown part."""
    found = {name: _sum(calls.get(name), calls.get(hit, 0)) for name, hit in PAID_TO_CACHED.items()}
    return {"requests": None if calls.get("hit_completions") else calls.get("requests"), **found}


def per_sample(metrics: Mapping[str, Any], num_samples: int) -> dict[str, Any]:
    """The teacher's cost over all stages, per sample."""
    parts = [roles["teacher"] for roles in (metrics.get("cost") or {}).values() if "teacher" in roles]
    if not (parts and num_samples):
        return {}
    totals = {name: _total(part.get(name) for part in parts) for name in ("requests", *PAID_TO_CACHED)}
    shares = {name: None if total is None else round(total / num_samples, 6) for name, total in totals.items()}
    return {"samples": num_samples, **shares}


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else round(one + other, 9)


def _total(values: Any) -> float | None:
    total: float | None = 0
    for value in values:
        total = _sum(total, value)
    return total
