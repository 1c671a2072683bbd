"""The figures of one evaluation, made of its predictions alone."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby

from dsrl.core.errors import StageFailed
from dsrl.data.difficulty_tiers import sort_tiers
from dsrl.data.evaluation import Estimate, Evaluation, Setting, Siblings, Subject
from dsrl.stages.evaluate.intervals import bootstrap, proportion
from dsrl.stages.evaluate.predictions import GREEDY, Prediction

Rows = list[Prediction]
"""All predictions of one item, the greedy one first."""
SHARES: dict[str, Callable[[Prediction], bool | None]] = {
    "format_ok": lambda row: row.format_ok,
    "format_free": lambda row: row.correct_anywhere,
    "truncated": lambda row: None if row.text is None else row.finish_reason == "length",
}
"""Figures over sampled replies besides pass@1."""


def summarise(
    predictions: Sequence[Prediction],
    setting: Setting,
    *,
    resamples: int,
    seed: int,
    overlap: Mapping[str, int] | None = None,
) -> Evaluation:
    """Raises `StageFailed` if no item got a sampled reply, or none a greedy one."""
    items = [list(rows) for _, rows in groupby(predictions, key=lambda row: row.item)]

    def mean(of: Callable[[Prediction], bool | None]) -> Estimate | None:
        return over_items([sampled(rows, of) for rows in items], resamples, seed)

    rates, greedy = tuple(map(rate, items)), tuple(map(best, items))
    pass_at_1, right = over_items(rates, resamples, seed), of_known(greedy)
    if pass_at_1 is None or right is None:
        lacking = "sampled" if pass_at_1 is None else "greedy"
        raise StageFailed(
            f"evaluate: {setting.name} gave no {lacking} reply to any of {len(items)} items",
            got=next((row.error for row in predictions if row.error), None),
            next_step="look at the rollout's log; what came is kept",
        )
    return Evaluation(
        **dataclasses.asdict(setting),
        num_items=len(items),
        pass_at_1=pass_at_1,
        greedy=right,
        **{name: mean(of) for name, of in SHARES.items()},  # type: ignore[arg-type]  # there are sampled replies
        num_errors=sum(row.text is None for row in predictions),
        item_rates=rates,
        item_greedy=greedy,
        item_subjects=named(items, "subject"),
        subjects=tuple(by_name(items, "subject", resamples, seed)),
        item_tiers=named(items, "tier"),
        tiers=tuple(by_name(items, "tier", resamples, seed)),
        siblings=of_siblings(items, resamples, seed),
        overlap=dict(overlap or {}),
    )


def rate(rows: Rows) -> float | None:
    """An item's share of right sampled replies; None where none came."""
    return sampled(rows, lambda row: row.correct)


def best(rows: Rows) -> bool | None:
    """Whether an item's greedy reply is right; None where it never came."""
    return rows[0].correct if rows[0].index == GREEDY else None


def sampled(rows: Rows, of: Callable[[Prediction], bool | None]) -> float | None:
    """Share of sampled replies to one item of which something holds, among those of which it is known."""
    known = [value for row in rows if row.index != GREEDY and (value := of(row)) is not None]
    return sum(known) / len(known) if known else None


def over_items(values: Iterable[float | None], resamples: int, seed: int) -> Estimate | None:
    """The mean over the items that have a value; None where none has."""
    known = [value for value in values if value is not None]
    return bootstrap(known, resamples, seed) if known else None


def of_known(verdicts: Iterable[bool | None]) -> Estimate | None:
    """The share of true verdicts among the known ones; None where none is known."""
    known = [verdict for verdict in verdicts if verdict is not None]
    return proportion(known) if known else None


def by_name(items: Sequence[Rows], column: str, resamples: int, seed: int) -> Iterable[Subject]:
    """The figures of each subject or tier; nothing where items have none."""
    names = named(items, column)
    for name in sort_tiers(names):
        own = [rows for rows, known in zip(items, names, strict=True) if known == name]
        yield Subject(
            name=name,
            num_items=len(own),
            pass_at_1=over_items(map(rate, own), resamples, seed),
            greedy=of_known(map(best, own)),
        )


def of_siblings(items: Sequence[Rows], resamples: int, seed: int) -> Siblings | None:
    """The figures over groups; None where items have no siblings."""
    groups: dict[str, list[Rows]] = {}
    for rows in items:
        groups.setdefault(rows[0].group or f"item {rows[0].item}", []).append(rows)
    if len(groups) == len(items):
        return None
    rates = ([value for value in map(rate, own) if value is not None] for own in groups.values())
    verdicts = [[best(rows) for rows in own] for own in groups.values()]
    return Siblings(
        num_groups=len(groups),
        pass_at_1=over_items([sum(own) / len(own) if own else None for own in rates], resamples, seed),
        worst=of_known(False if False in own else None if None in own else True for own in verdicts),
    )


def named(items: Sequence[Rows], column: str) -> tuple[str | None, ...]:
    """Every item's subject or tier; empty where no item has one."""
    found = tuple(getattr(rows[0], column) for rows in items)
    return found if any(found) else ()
