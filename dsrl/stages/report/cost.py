"""What the run cost in requests, tokens, dollars and time."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsrl.pipeline.store import MANIFEST
from dsrl.stages.report import formatting

ROLES = {"teacher": "Teacher", "model": "Measured models"}
COUNTERS = (
    *("requests", "completions", "store_hits", "input_tokens", "cached_tokens", "output_tokens"),
    *("retries", "throttled", "batch_requests", "repairs", "errors"),
)

Usage = Mapping[str, Any]
"""Counters of calls, by name."""


@dataclass(frozen=True)
class UsageRow:
    """Calls of one role or stage, ready to print."""

    name: str
    requests: str
    completions: str
    hits: str
    input_tokens: str
    cached_tokens: str
    output_tokens: str
    usd: str
    note: str = ""


@dataclass(frozen=True)
class StageTime:
    """Time of one stage; `share` is relative to the longest one."""

    stage: str
    words: str
    share: float
    reused: bool
    """Whether this is the time of an earlier run, which made the result."""


@dataclass(frozen=True)
class CostSection:
    """Calls and time."""

    roles: tuple[UsageRow, ...]
    stages: tuple[UsageRow, ...]
    """Over all runs that paid for the results."""
    per_sample: UsageRow | None
    durations: tuple[StageTime, ...]
    total: str
    unknown: bool
    """Whether some price is unknown."""


def cost(metrics: Mapping[str, Any], store: Path) -> CostSection | None:
    """None if nothing was counted."""
    reused = [stage for stage, hit in (metrics.get("reused") or {}).items() if hit]
    earlier = {stage: made for stage in reused if (made := read_manifest(store, metrics["keys"].get(stage)))}
    now = {role: usage for role, usage in (metrics.get("calls") or {}).items() if _is_used(usage)}
    before = sum_by_role([made.get("calls") or {} for made in earlier.values()])
    seconds = metrics.get("seconds") or {}
    spent = {**seconds, **{stage: made["seconds"] for stage, made in earlier.items()}}
    if not now and not before and not spent:
        return None
    longest = max(spent.values(), default=0) or 1
    per_sample = metrics.get("per_sample") or {}
    return CostSection(
        roles=(
            *(_usage_row(ROLES.get(role, role), usage, note=_troubles(usage)) for role, usage in now.items()),
            *(
                _usage_row(ROLES.get(role, role), usage, note=f"earlier runs, reused here{_troubles(usage, ', ')}")
                for role, usage in before.items()
            ),
        ),
        stages=_stages(metrics.get("cost") or {}),
        per_sample=_usage_row(
            f"each of {formatting.count(per_sample['samples'])} samples", per_sample, formatting.significant
        )
        if per_sample
        else None,
        durations=tuple(
            StageTime(stage, formatting.duration(took), took / longest, stage in earlier)
            for stage, took in spent.items()
        ),
        total=formatting.duration(sum(seconds.values())),
        unknown=any(usage.get("usd") is None for usage in (*now.values(), *before.values())),
    )


def _stages(costs: Mapping[str, Mapping[str, Usage]]) -> tuple[UsageRow, ...]:
    """One row a stage, or one a stage and role if there are roles besides the teacher."""
    found = [(stage, role, usage) for stage, roles in costs.items() for role, usage in roles.items()]
    several = {role for _, role, _ in found} - {"teacher"}
    return tuple(
        _usage_row(f"{stage}, {ROLES.get(role, role).lower()}" if several else stage, usage)
        for stage, role, usage in found
    )


def _usage_row(
    name: str, usage: Usage, number: Callable[[float | None], str] = formatting.count, note: str = ""
) -> UsageRow:
    return UsageRow(
        name=name,
        requests=number(usage.get("requests")),
        completions=number(usage.get("completions")),
        hits=number(usage.get("store_hits")),
        input_tokens=number(usage.get("input_tokens")),
        cached_tokens=number(usage.get("cached_tokens")),
        output_tokens=number(usage.get("output_tokens")),
        usd=formatting.dollars(usage.get("usd")),
        note=note,
    )


def _troubles(usage: Usage, lead: str = "") -> str:
    """Counters worth a note, those above zero."""
    words = {
        "cached_tokens": "input tokens from the endpoint's cache",
        "batch_requests": "batch requests",
        "throttled": "rate-limited (429)",
        "retries": "retries",
        "repairs": "repairs",
        "errors": "without a reply",
    }
    notes = [f"{formatting.count(usage[name])} {meaning}" for name, meaning in words.items() if usage.get(name)]
    return lead + ", ".join(notes) if notes else ""


def read_manifest(store: Path, key: str | None) -> dict[str, Any] | None:
    """The manifest of the store entry with this key, if it is still there."""
    paths = list((store / "stages").glob(f"*/{key}/{MANIFEST}")) if key else []
    return json.loads(paths[0].read_text(encoding="utf-8")) if paths else None


def sum_by_role(stages: Sequence[Mapping[str, Usage]]) -> dict[str, dict[str, Any]]:
    """Calls of several stages by role. Dollars are None if any part of them is."""
    parts: dict[str, list[Usage]] = {}
    for calls in stages:
        for role, usage in calls.items():
            if _is_used(usage):
                parts.setdefault(role, []).append(usage)
    return {
        role: {
            **{name: sum(usage.get(name) or 0 for usage in own) for name in COUNTERS},
            "usd": _sum_known([usage.get("usd") for usage in own]),
        }
        for role, own in parts.items()
    }


def _is_used(usage: Usage) -> bool:
    return any(usage.get(name) for name in ("requests", "completions", "store_hits", "errors"))


def _sum_known(values: Sequence[float | None]) -> float | None:
    """None if any value is."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
