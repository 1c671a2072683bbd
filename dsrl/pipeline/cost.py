"""What stages cost, for `metrics.json`: in this run, and over all runs that paid for the result."""

from collections.abc import Mapping
from typing import Any

Counters = Mapping[str, Any]
"""Counters of one role, as the ledger has them."""
WORTH = {
    "completions": "hit_completions",
    "input_tokens": "hit_input_tokens",
    "cached_tokens": "hit_cached_tokens",
    "output_tokens": "hit_output_tokens",
    "usd": "hit_usd",
}
"""What this run paid for -> what was paid for before and found in the calls store."""


def book(metrics: dict[str, Any], stage: str, calls: Mapping[str, Counters], made: Mapping[str, Counters]) -> None:
    """Book a stage: `calls` of this run, and those of the run that `made` the result, which may be this one."""
    metrics.setdefault("calls_by_stage", {})[stage] = dict(calls)
    metrics.setdefault("cost", {})[stage] = {role: whole(counters) for role, counters in made.items()}


def whole(calls: Counters) -> dict[str, Any]:
    """What a result cost, whoever paid: this run's calls and the store hits. The number of HTTP requests behind hits
    isn't known; neither is a sum with an unknown part."""
    found = {name: _sum(calls.get(name), calls.get(hit, 0)) for name, hit in WORTH.items()}
    return {"requests": None if calls.get("hit_completions") else calls.get("requests"), **found}


def per_sample(metrics: Mapping[str, Any], num_samples: int) -> dict[str, Any]:
    """The teacher's cost in all stages, divided by the samples it led to."""
    parts = [roles["teacher"] for roles in (metrics.get("cost") or {}).values() if "teacher" in roles]
    if not (parts and num_samples):
        return {}
    totals = {name: _total(part.get(name) for part in parts) for name in ("requests", *WORTH)}
    shares = {name: None if total is None else round(total / num_samples, 6) for name, total in totals.items()}
    return {"samples": num_samples, **shares}


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else round(one + other, 9)


def _total(values: Any) -> float | None:
    total: float | None = 0
    for value in values:
        total = _sum(total, value)
    return total
