"""What the run cost, and what the results that it found in the store had cost when they were made."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsrl.pipeline.store import MANIFEST
from dsrl.stages.report import formatting

ROLES = {"teacher": "Teacher", "model": "Measured models"}
COUNTERS = (
    "requests",
    "completions",
    "store_hits",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "retries",
    "throttled",
    "batch_requests",
    "repairs",
    "errors",
)

Spent = Mapping[str, Any]


@dataclass(frozen=True)
class Role:
    """The calls of one role, ready to print."""

    name: str
    requests: str
    completions: str
    hits: str
    input_tokens: str
    output_tokens: str
    usd: str
    note: str


@dataclass(frozen=True)
class Share:
    """What one role cost one stage over all runs, or one sample."""

    name: str
    requests: str
    completions: str
    input_tokens: str
    cached_tokens: str
    output_tokens: str
    usd: str


@dataclass(frozen=True)
class Duration:
    """One stage's time."""

    stage: str
    words: str
    share: float
    """Of the longest stage."""
    reused: bool
    """The time is that of an earlier run, which made the result."""


@dataclass(frozen=True)
class Cost:
    """Calls and time."""

    roles: tuple[Role, ...]
    stages: tuple[Share, ...]
    per_sample: Share | None
    durations: tuple[Duration, ...]
    total: str
    unknown: bool
    """Some price is not known."""


def cost(metrics: Mapping[str, Any], store: Path) -> Cost | None:
    """None where nothing was counted."""
    earlier = {stage: made for stage in reused(metrics) if (made := manifest(store, metrics["keys"].get(stage)))}
    now = {role: spent for role, spent in (metrics.get("calls") or {}).items() if _used(spent)}
    before = added([made.get("calls") or {} for made in earlier.values()])
    durations = _durations(metrics.get("seconds") or {}, {stage: made["seconds"] for stage, made in earlier.items()})
    if not now and not before and not durations:
        return None
    return Cost(
        roles=(
            *(_role(name, spent, "") for name, spent in now.items()),
            *(_role(name, spent, "earlier, for what is reused here") for name, spent in before.items()),
        ),
        stages=_stages(metrics.get("cost") or {}),
        per_sample=_per_sample(metrics.get("per_sample") or {}),
        durations=durations,
        total=formatting.seconds(sum((metrics.get("seconds") or {}).values())),
        unknown=any(spent.get("usd") is None for spent in (*now.values(), *before.values())),
    )


def _stages(costs: Mapping[str, Mapping[str, Spent]]) -> tuple[Share, ...]:
    found = [(stage, role, spent) for stage, roles in costs.items() for role, spent in roles.items()]
    several = {role for _, role, _ in found} - {"teacher"}
    return tuple(
        _share(f"{stage}, {ROLES.get(role, role).lower()}" if several else stage, spent) for stage, role, spent in found
    )


def _per_sample(spent: Spent) -> Share | None:
    return _share(f"each of {formatting.count(spent['samples'])} samples", spent, formatting.figure) if spent else None


def _share(name: str, spent: Spent, number: Callable[[float | None], str] = formatting.count) -> Share:
    return Share(
        name=name,
        requests=number(spent.get("requests")),
        completions=number(spent.get("completions")),
        input_tokens=number(spent.get("input_tokens")),
        cached_tokens=number(spent.get("cached_tokens")),
        output_tokens=number(spent.get("output_tokens")),
        usd=formatting.dollars(spent.get("usd")),
    )


def reused(metrics: Mapping[str, Any]) -> list[str]:
    """Stages whose result was in the store."""
    return [stage for stage, found in (metrics.get("reused") or {}).items() if found]


def manifest(store: Path, key: str | None) -> dict[str, Any] | None:
    """What the store noted when it got the result with this key."""
    paths = list((store / "stages").glob(f"*/{key}/{MANIFEST}")) if key else []
    return json.loads(paths[0].read_text(encoding="utf-8")) if paths else None


def added(stages: Sequence[Mapping[str, Spent]]) -> dict[str, dict[str, Any]]:
    """Calls of several stages by role; dollars are unknown as soon as one part of them is."""
    roles = dict.fromkeys(role for calls in stages for role, spent in calls.items() if _used(spent))
    return {role: _sum([calls[role] for calls in stages if _used(calls.get(role) or {})]) for role in roles}


def _sum(parts: Sequence[Spent]) -> dict[str, Any]:
    dollars = [part.get("usd") for part in parts]
    known = [usd for usd in dollars if usd is not None]
    total = {name: sum(part.get(name) or 0 for part in parts) for name in COUNTERS}
    return {**total, "usd": sum(known) if len(known) == len(dollars) else None}


def _used(spent: Spent) -> bool:
    return any(spent.get(name) for name in ("requests", "completions", "store_hits", "errors"))


def _role(name: str, spent: Spent, when: str) -> Role:
    troubles = {
        "input tokens out of the endpoint's cache": spent.get("cached_tokens"),
        "batch requests": spent.get("batch_requests"),
        "turned away as too many (429)": spent.get("throttled"),
        "repeats": spent.get("retries"),
        "repairs": spent.get("repairs"),
        "without a reply": spent.get("errors"),
    }
    notes = [when] if when else []
    return Role(
        name=ROLES.get(name, name),
        requests=formatting.count(spent.get("requests")),
        completions=formatting.count(spent.get("completions")),
        hits=formatting.count(spent.get("store_hits")),
        input_tokens=formatting.count(spent.get("input_tokens")),
        output_tokens=formatting.count(spent.get("output_tokens")),
        usd=formatting.dollars(spent.get("usd")),
        note=", ".join(notes + [f"{formatting.count(number)} {words}" for words, number in troubles.items() if number]),
    )


def _durations(now: Mapping[str, float], earlier: Mapping[str, float]) -> tuple[Duration, ...]:
    spent = {**now, **earlier}
    longest = max(spent.values(), default=0) or 1
    return tuple(
        Duration(stage, formatting.seconds(seconds), seconds / longest, stage in earlier)
        for stage, seconds in spent.items()
    )
