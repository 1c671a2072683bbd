"""Samples that share text with test items: which, by which rule, and how both models do without those items."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dsrl.data.overlap.index import KINDS, rule_rank, split_shared
from dsrl.data.sample import Match, Rejected, Sample
from dsrl.pipeline.state import PipelineState
from dsrl.stages.report import formatting

MAX_PAIRS = 20
MAX_TEXT = 1500
"""Characters of one text."""
RULES = {
    "same": ("identical", "up to case and punctuation"),
    "whole": ("contains a whole item", "of five words or more"),
    "run": ("long common run of words", "that occurs in at most three test items"),
    "most": ("most of an item", "at least half of its shorter word runs"),
    "renamed": ("changed names and numbers", "at least half of its word runs once these are masked"),
    "reworded": ("reworded", "half of the IDF weight of its less common words, in any order"),
}
POLICIES = {
    "drop": "Samples that share text were dropped.",
    "flag": "Samples that share text were flagged and kept (task.contamination.policy=flag).",
}
NEAR_DUPLICATE = "near-duplicate"
"""Rejection reason."""

Pieces = tuple[tuple[str, bool], ...]
"""A text in pieces, each with whether the other text has the same words."""


@dataclass(frozen=True)
class SharedText:
    """A sample beside the test item that it shares text with."""

    rule: str
    outcome: str
    sample: Pieces
    item: Pieces
    number: int
    """Position of the item in its set, from 1."""
    source: str


@dataclass(frozen=True)
class ContaminationSection:
    """The contamination check and its effect on the result, ready to print."""

    lead: str
    rules: tuple[tuple[str, str, int], ...]
    """Name, explanation, samples."""
    pairs: tuple[SharedText, ...]
    hidden_pairs: int
    subset: str
    measures: tuple[tuple[str, str, str], ...]
    """Name, on all items, on clean items."""


def contamination(state: PipelineState, metrics: Mapping[str, Any]) -> ContaminationSection | None:
    """None if no stage checked."""
    figures = metrics.get("decontaminate") or {}
    if not figures:
        return None
    kinds = figures.get("kinds") or {}
    subset = (metrics.get("evaluate") or {}).get("clean") or {}
    rows: list[Sample | Rejected] = [*state.samples, *state.rejected]
    matched = sorted(((row, _surest(row)) for row in rows if row.matches), key=lambda pair: _certainty(pair[1]))
    return ContaminationSection(
        lead=_lead(state, figures),
        rules=tuple((*RULES[kind], kinds[kind]) for kind in KINDS if kind in kinds),
        pairs=_pairs(state, matched[:MAX_PAIRS]),
        hidden_pairs=max(0, len(matched) - MAX_PAIRS),
        subset=_subset(subset),
        measures=_measures(metrics, subset) if subset.get("excluded") else (),
    )


def _certainty(match: Match) -> tuple[int, float]:
    """Sorts the surest match first."""
    return rule_rank(match.kind), -match.share


def _surest(row: Sample | Rejected) -> Match:
    return min(row.matches, key=_certainty)


def _pairs(state: PipelineState, matched: Sequence[tuple[Sample | Rejected, Match]]) -> tuple[SharedText, ...]:
    task = state.task
    sources = {"test": task.test, **{source.path: source for source in task.contamination.also}}
    needed = {match.source for _, match in matched}
    questions = {
        name: [source.question(row) for row in source.rows()]
        for name, source in sources.items()
        if source is not None and name in needed
    }
    pairs = []
    for row, match in matched:
        items = questions.get(match.source, [])
        ours, theirs = (row.input or "")[:MAX_TEXT], items[match.item][:MAX_TEXT] if match.item < len(items) else ""
        pairs.append(
            SharedText(
                rule=RULES[match.kind][0],
                outcome="kept" if isinstance(row, Sample) else "dropped",
                sample=tuple(split_shared(ours, theirs)),
                item=tuple(split_shared(theirs, ours)),
                number=match.item + 1,
                source="the test set" if match.source == "test" else match.source,
            )
        )
    return tuple(pairs)


def _lead(state: PipelineState, figures: Mapping[str, Any]) -> str:
    repeated = Counter(row.reason for row in state.rejected)[NEAR_DUPLICATE]
    candidates = formatting.plural(repeated, "near-duplicate candidate was", "near-duplicate candidates were")
    near = f" {candidates} rejected before the vote." if repeated else ""
    if figures.get("policy") == "keep":
        return f"No contamination check was run against the test set (task.contamination.policy=keep).{near}"
    checked, matched = figures.get("samples") or 0, figures.get("matched") or 0
    disabled = ""
    if figures.get("silent"):
        names = formatting.join_words(
            [RULES[kind][0] for kind in sorted({kind for kinds in figures["silent"].values() for kind in kinds})]
        )
        disabled = f" Disabled rules: {names}. Test items resemble each other too much for them."
    if not matched:
        return f"None of {formatting.plural(checked, 'sample')} shares text with a test item.{disabled}{near}"
    return (
        f"{formatting.count(matched)} of {formatting.plural(checked, 'sample')} share text with "
        f"{formatting.plural(figures.get('items') or 0, 'test item')}. "
        f"{POLICIES.get(str(figures.get('policy')), '')}{disabled}{near}"
    )


def _subset(subset: Mapping[str, Any]) -> str:
    if not subset or not subset.get("looked"):
        return ""
    if not subset.get("excluded"):
        return "No training sample shares text with a test item, so the result above is on clean items."
    items = formatting.plural(subset["excluded"], "test item shares", "test items share")
    return f"{items} text with a training sample. Both models on the other {formatting.count(subset['n'])}:"


def _measures(metrics: Mapping[str, Any], subset: Mapping[str, Any]) -> tuple[tuple[str, str, str], ...]:
    def mean(found: Mapping[str, Any] | None) -> str:
        if not found:
            return formatting.MISSING
        low, high = formatting.percent(found["low"]), formatting.percent(found["high"])
        return f"{formatting.percent(found['pass_at_1'])} ({low} to {high})"

    def change(found: Mapping[str, Any] | None) -> str:
        if not found:
            return formatting.MISSING
        low, high = formatting.points(found["low"]), formatting.points(found["high"])
        return f"{formatting.points(found['estimate'])} ({low} to {high})"

    whole = metrics.get("evaluate") or {}
    rows = [(f"{role} model, pass@1", mean(whole.get(role)), mean(subset.get(role))) for role in ("base", "trained")]
    return (*rows, ("change", change(whole.get("difference")), change(subset.get("difference"))))
