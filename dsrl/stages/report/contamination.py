"""Samples held against the test set: what was found, word for word, and what it did to the result."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dsrl.data.overlap.index import KINDS, rule_rank, split_shared
from dsrl.data.sample import Match, Rejected, Sample
from dsrl.pipeline.state import PipelineState
from dsrl.stages.report import formatting

MOST_SHOWN = 20
LONGEST = 1500
"""Characters of one text."""
RULES = {
    "same": ("the same text", "but for case and punctuation"),
    "whole": ("a whole item", "of five words or more, within a longer text"),
    "run": ("a long run of words", "that stands in three test items at most"),
    "most": ("most of an item", "at least half of its shorter runs of words"),
    "renamed": ("other names and numbers", "at least half of its runs of words once these are masked"),
    "reworded": ("other words", "half of what its less common words weigh, in any order"),
}
POLICIES = {
    "drop": "What shares text with one was left out.",
    "flag": "What shares text with one was marked and kept: task.contamination.policy=flag.",
}
NEAR = "near-duplicate"


@dataclass(frozen=True)
class Row:
    """One rule."""

    name: str
    note: str
    samples: int


@dataclass(frozen=True)
class Pair:
    """A sample beside the test item that it gives away."""

    rule: str
    fate: str
    sample: tuple[tuple[str, bool], ...]
    """In pieces, each with whether the item has these words, too."""
    item: tuple[tuple[str, bool], ...]
    number: int
    """Position of the item in its set, from 1."""
    source: str


@dataclass(frozen=True)
class Measure:
    """One model, on all items and on the clean ones."""

    name: str
    all: str
    clean: str


@dataclass(frozen=True)
class Clean:
    """The section of the page."""

    lead: str
    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]
    more: int
    """Pairs that aren't shown."""
    subset: str
    measures: tuple[Measure, ...]


def clean(state: PipelineState, metrics: Mapping[str, Any]) -> Clean | None:
    """None where no stage looked."""
    figures = metrics.get("decontaminate") or {}
    if not figures:
        return None
    found: list[Sample | Rejected] = [sample for sample in state.samples if sample.matches]
    found += [candidate for candidate in state.rejected if candidate.matches]
    found.sort(key=lambda row: min((rule_rank(match.kind), -match.share) for match in row.matches))
    kinds = figures.get("kinds") or {}
    subset = (metrics.get("evaluate") or {}).get("clean") or {}
    return Clean(
        lead=_lead(state, figures),
        rows=tuple(Row(*RULES[kind], kinds[kind]) for kind in KINDS if kind in kinds),
        pairs=pairs(state, found[:MOST_SHOWN]),
        more=max(0, len(found) - MOST_SHOWN),
        subset=_subset(subset),
        measures=_measures(metrics, subset) if subset.get("excluded") else (),
    )


def pairs(state: PipelineState, found: Sequence[Sample | Rejected]) -> tuple[Pair, ...]:
    """Each with its surest match."""
    surest = [(row, min(row.matches, key=lambda match: (rule_rank(match.kind), -match.share))) for row in found]
    items = _items(state, {match.source for _, match in surest})
    return tuple(_pair(row, match, items) for row, match in surest)


def _pair(row: Sample | Rejected, match: Match, items: Mapping[str, Sequence[str]]) -> Pair:
    ours = row.input or ""
    theirs = items[match.source][match.item] if match.item < len(items.get(match.source, ())) else ""
    return Pair(
        rule=RULES[match.kind][0],
        fate="kept" if isinstance(row, Sample) else "left out",
        sample=_pieces(ours, theirs),
        item=_pieces(theirs, ours),
        number=match.item + 1,
        source="the test set" if match.source == "test" else match.source,
    )


def _pieces(ours: str, theirs: str) -> tuple[tuple[str, bool], ...]:
    ours, theirs = ours[:LONGEST], theirs[:LONGEST]
    return tuple(split_shared(ours, theirs))


def _items(state: PipelineState, names: set[str]) -> dict[str, list[str]]:
    """Questions of the sets that are shown from."""
    task = state.task
    sources = {"test": task.test, **{source.path: source for source in task.contamination.also}}
    return {
        name: [source.question(row) for row in source.rows()]
        for name, source in sources.items()
        if source is not None and name in names
    }


def _lead(state: PipelineState, figures: Mapping[str, Any]) -> str:
    repeated = Counter(row.reason for row in state.rejected)[NEAR]
    candidates = formatting.plural(repeated, "candidate")
    near = f" {candidates} said nearly the same as an earlier sample and got no votes." if repeated else ""
    if figures.get("policy") == "keep":
        return f"Samples were not held against the test set: task.contamination.policy=keep.{near}"
    checked, matched = figures.get("samples") or 0, figures.get("matched") or 0
    if not matched:
        return (
            f"None of {formatting.plural(checked, 'sample')} shares text with a test item.{_patterned(figures)}{near}"
        )
    words = (
        f"{formatting.count(matched)} of {formatting.plural(checked, 'sample')} share text with "
        f"{formatting.plural(figures.get('items') or 0, 'test item')}. {POLICIES.get(str(figures.get('policy')), '')}"
    )
    return f"{words}{_patterned(figures)}{near}"


def _patterned(figures: Mapping[str, Any]) -> str:
    if not figures.get("silent"):
        return ""
    silent = sorted({kind for kinds in figures["silent"].values() for kind in kinds})
    names = formatting.listed([RULES[kind][0] for kind in silent])
    return f" Nothing was sought under {names}: in that, test items resemble each other too much."


def _subset(subset: Mapping[str, Any]) -> str:
    if not subset or not subset.get("looked"):
        return ""
    if not subset.get("excluded"):
        return "No training sample shares text with a test item: the result above is on clean items."
    items = formatting.plural(subset["excluded"], "test item shares", "test items share")
    return f"{items} text with a training sample; the models once more on the other {formatting.count(subset['n'])}:"


def _measures(metrics: Mapping[str, Any], subset: Mapping[str, Any]) -> tuple[Measure, ...]:
    whole = metrics.get("evaluate") or {}
    rows = [
        Measure(f"{role} model, pass@1", _mean(whole.get(role)), _mean(subset.get(role)))
        for role in ("base", "trained")
    ]
    return (*rows, Measure("change", _change(whole.get("difference")), _change(subset.get("difference"))))


def _mean(measured: Mapping[str, Any] | None) -> str:
    if not measured:
        return formatting.MISSING
    low, high = formatting.percent(measured["low"]), formatting.percent(measured["high"])
    return f"{formatting.percent(measured['pass_at_1'])} ({low} to {high})"


def _change(difference: Mapping[str, Any] | None) -> str:
    if not difference:
        return formatting.MISSING
    low, high = formatting.points(difference["low"]), formatting.points(difference["high"])
    return f"{formatting.points(difference['estimate'])} ({low} to {high})"
