"""What the run cost: paid calls, and seconds by stage."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dsrl.report import text


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
    troubles: str


@dataclass(frozen=True)
class Duration:
    """One stage's time."""

    stage: str
    words: str
    share: float
    """Of the longest stage."""
    reused: bool


@dataclass(frozen=True)
class Cost:
    """Calls and time."""

    roles: tuple[Role, ...]
    durations: tuple[Duration, ...]
    total: str
    unknown: bool
    """Some price is not known."""


def cost(metrics: Mapping[str, Any]) -> Cost | None:
    """None where nothing was counted."""
    calls = {role: spent for role, spent in (metrics.get("calls") or {}).items() if _used(spent)}
    durations = _durations(metrics)
    if not calls and not durations:
        return None
    total = sum((metrics.get("seconds") or {}).values())
    return Cost(
        roles=tuple(_role(name, spent) for name, spent in calls.items()),
        durations=durations,
        total=text.seconds(total),
        unknown=any(spent.get("usd") is None for spent in calls.values()),
    )


def _used(spent: Mapping[str, Any]) -> bool:
    return any(spent.get(name) for name in ("requests", "completions", "store_hits", "errors"))


def _role(name: str, spent: Mapping[str, Any]) -> Role:
    troubles = {
        "repeats": spent.get("retries"),
        "repairs": spent.get("repairs"),
        "without a reply": spent.get("errors"),
    }
    return Role(
        name={"teacher": "Teacher", "model": "Served model"}.get(name, name),
        requests=text.count(spent.get("requests")),
        completions=text.count(spent.get("completions")),
        hits=text.count(spent.get("store_hits")),
        input_tokens=text.count(spent.get("input_tokens")),
        output_tokens=text.count(spent.get("output_tokens")),
        usd=text.dollars(spent.get("usd")),
        troubles=", ".join(f"{text.count(number)} {words}" for words, number in troubles.items() if number),
    )


def _durations(metrics: Mapping[str, Any]) -> tuple[Duration, ...]:
    spent, reused = metrics.get("seconds") or {}, metrics.get("reused") or {}
    longest = max(spent.values(), default=0) or 1
    return tuple(
        Duration(stage, text.seconds(seconds), seconds / longest, bool(reused.get(stage)))
        for stage, seconds in spent.items()
    )
