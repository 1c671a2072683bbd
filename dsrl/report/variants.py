"""Seeds and their harder variants, side by side: how often the model solves them, and what became of all attempts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dsrl.report import text
from dsrl.report.difficulty import Panel, panel
from dsrl.sample import Rate, Sample
from dsrl.study import Study

MAX_PAIRS = 12


@dataclass(frozen=True)
class Pair:
    """One seed and its variant."""

    seed: str
    variant: str
    answer: str
    seed_count: str
    accepting: str
    """What the verifiers said."""
    fresh_count: str


@dataclass(frozen=True)
class Variants:
    """The section of the page."""

    lead: str
    panels: tuple[Panel, ...]
    attempts: int
    outcomes: tuple[tuple[str, int], ...]
    """What became of the attempts, the accepted ones first."""
    pairs: tuple[Pair, ...]
    shown: str


def variants(study: Study, metrics: Mapping[str, Any]) -> Variants | None:
    """None where no question was rewritten with its answer kept."""
    figures = (metrics.get("stages") or {}).get("rewrite") or {}
    if "seed_counts" not in figures:
        return None
    by_id = {sample.id: sample for sample in study.samples}
    pairs = [(by_id[one.parent_id], one) for one in study.samples if one.origin == "harder" and one.parent_id in by_id]
    rejected = Counter(one.reason for one in study.rejected if one.stage == "rewrite")
    seeds, children = ([pair[side] for pair in pairs] for side in (0, 1))
    groups = (("Seeds that got a variant", seeds, ""), ("Their variants, counted anew", children, "other"))
    return Variants(
        lead=_lead(figures),
        panels=tuple(panel(title, group, style) for title, group, style in groups if group),
        attempts=figures["attempts"],
        outcomes=(("kept", len(pairs)), *rejected.most_common()),
        pairs=tuple(_pair(*pair) for pair in pairs[:MAX_PAIRS]),
        shown=f"the first {MAX_PAIRS} of {text.count(len(pairs))}" if len(pairs) > MAX_PAIRS else "",
    )


def _lead(figures: Mapping[str, Any]) -> str:
    seeds, eligible, kept = figures["seeds"], figures["eligible"], figures["variants"]
    told = (
        f"{text.count(eligible)} of {text.plural(seeds, 'seed')} were solved often enough to be made harder, and "
        f"{text.count(kept)} of these got a variant with the same answer."
    )
    if not kept:
        return told
    accepting = figures["mean_accepting"]
    low = f" (when they were accepted: {accepting:.1f}, which selection has bent)" if accepting else ""
    return (
        f"{told} Right replies fell from {figures['mean_seed']:.1f} to {figures['mean_fresh']:.1f} on average, counted "
        f"with fresh replies that no decision has looked at{low}."
    )


def _pair(seed: Sample, variant: Sample) -> Pair:
    words: Sequence[str] = [verdict.reason for verdict in variant.verdicts if verdict.reason]
    return Pair(
        seed=seed.input,
        variant=variant.input,
        answer=variant.answer,
        seed_count=_count(seed.score),
        accepting=" · ".join(words),
        fresh_count=_count(variant.score),
    )


def _count(rate: Rate | None) -> str:
    return f"{rate.num_correct} of {rate.num_valid}" if rate else text.MISSING
