"""The block `evaluate` of `metrics.json` as text for a terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

NAMES = {"greedy": "greedy", "format_free": "in any format", "format_ok": "format kept", "truncated": "cut off"}


def lines(role: str, block: Mapping[str, Any]) -> Iterator[str]:
    """One model: pass@1 and the other metrics with 95 % intervals, then its subjects."""
    sampled = f"pass@1 {interval(block['pass_at_1'], block['low'], block['high'])}"
    rest = [f"{words} {interval(block[name], *block['intervals'][name])}" for name, words in NAMES.items()]
    yield f"{role:<12} {'  '.join([sampled, *rest[:1]])}"
    yield f"{'':<12} {'  '.join(rest[1:])}"
    for name, part in {**block["subjects"], **block.get("tiers", {})}.items():
        yield f"  {name}: {' '.join(_subject(part))}"
    if (groups := block.get("groups")) and groups["pass_at_1"]:
        yield f"  over {groups['n']} groups of siblings: {' '.join(_groups(groups))}"
    if block.get("predictions"):
        yield f"predictions  {block['predictions']}"


def interval(value: float, low: float, high: float) -> str:
    """`43.7 % (41.5 to 45.9)`."""
    return f"{100 * value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def _groups(groups: Mapping[str, Any]) -> Iterator[str]:
    for name, words in (("pass_at_1", "pass@1"), ("worst", "all of a group right")):
        if found := groups[name]:
            yield f" {words} {interval(found['value'], found['low'], found['high'])}"


def _subject(subject: Mapping[str, Any]) -> Iterator[str]:
    yield f"{subject['n']} items"
    for name, words in (("pass_at_1", "pass@1"), ("greedy", "greedy")):
        if found := subject[name]:
            yield f" {words} {interval(found['value'], found['low'], found['high'])}"
