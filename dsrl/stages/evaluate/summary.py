"""The figures of one evaluation, computed from its predictions alone."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby

from dsrl.core.digest import text_digest
from dsrl.core.errors import StageFailed
from dsrl.data.difficulty_tiers import sort_tiers
from dsrl.data.evaluation import Estimate, Evaluation, Setting, Siblings, Subject
from dsrl.data.model import was_truncated
from dsrl.stages.evaluate.predictions import GREEDY, Prediction
from dsrl.stages.evaluate.statistics import Units, mean_interval, share_interval

ItemRows = list[Prediction]
"""All predictions of one item, the greedy one first."""
SHARES: dict[str, Callable[[Prediction], bool | None]] = {
    "format_ok": lambda row: row.format_ok,
    "format_free": lambda row: row.correct_anywhere,
    "truncated": lambda row: None if row.text is None else was_truncated(row.finish_reason),
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
    """Compute all figures. Raises `StageFailed` if no item got a sampled reply, or none a greedy one."""
    items = [list(rows) for _, rows in groupby(predictions, key=lambda row: row.item)]
    units, rates, greedy = independent_units(items), tuple(map(pass_rate, items)), tuple(map(greedy_correct, items))
    for values, kind in ((rates, "sampled"), (greedy, "greedy")):
        if all(value is None for value in values):
            raise StageFailed(
                f"evaluate: {setting.name} gave no {kind} reply to any of {len(items)} items",
                got=next((row.error for row in predictions if row.error), None),
                next_step="see the rollout's log; replies that came are cached",
            )

    def mean(values: Sequence[float | None]) -> Estimate:
        return mean_interval(known_units(values, units), resamples, seed)

    shares = {name: tuple(sampled_share(rows, of) for rows in items) for name, of in SHARES.items()}
    return Evaluation(
        **dataclasses.asdict(setting),
        num_items=len(items),
        pass_at_1=mean(rates),
        greedy=share_interval(known_units(greedy, units), resamples, seed),
        format_ok=mean(shares["format_ok"]),
        format_free=mean(shares["format_free"]),
        truncated=mean(shares["truncated"]),
        num_errors=sum(row.text is None for row in predictions),
        item_rates=rates,
        item_greedy=greedy,
        item_shares=shares,
        item_units=units,
        item_subjects=item_names(items, "subject"),
        subjects=tuple(summarise_parts(items, units, "subject", resamples, seed)),
        item_tiers=item_names(items, "tier"),
        tiers=tuple(summarise_parts(items, units, "tier", resamples, seed)),
        siblings=summarise_groups(items, resamples, seed),
        overlap=dict(overlap or {}),
    )


def independent_units(items: Sequence[ItemRows]) -> tuple[int, ...]:
    """The unit of each item, numbered by its first item: its group, else its question. Replies to a repeated question
    are drawn from the same prompt, so they add no evidence."""

    def name(rows: ItemRows) -> tuple[str, object]:
        row = rows[0]
        if row.group is not None:
            return "group", row.group
        if row.content is None and "<image>" in row.input:  # an older table: the images are unknown
            return "item", row.item
        return "question", row.content or text_digest(row.input)

    first: dict[tuple[str, object], int] = {}
    return tuple(first.setdefault(name(rows), place) for place, rows in enumerate(items))


def pass_rate(rows: ItemRows) -> float | None:
    """Share of right replies among an item's sampled ones; None if none came."""
    return sampled_share(rows, lambda row: row.correct)


def greedy_correct(rows: ItemRows) -> bool | None:
    """Whether an item's greedy reply is right; None if it never came."""
    return rows[0].correct if rows[0].index == GREEDY else None


def sampled_share(rows: ItemRows, holds: Callable[[Prediction], bool | None]) -> float | None:
    """Share of an item's sampled replies for which `holds`, among those that came."""
    known = [value for row in rows if row.index != GREEDY and (value := holds(row)) is not None]
    return sum(known) / len(known) if known else None


def known_units(values: Iterable[float | None], units: Sequence[int]) -> Units:
    """The values that are known, by unit. Raises `ValueError` if none is."""
    known = [(value, unit) for value, unit in zip(values, units, strict=True) if value is not None]
    return Units.of([value for value, _ in known], [unit for _, unit in known])


def summarise_parts(
    items: Sequence[ItemRows], units: Sequence[int], column: str, resamples: int, seed: int
) -> Iterable[Subject]:
    """The figures of each subject or tier; nothing if items have none."""
    names = item_names(items, column)
    for name in sort_tiers(names):
        own = [(rows, unit) for rows, unit, known in zip(items, units, names, strict=True) if known == name]
        own_units = [unit for _, unit in own]
        rates, greedy = ([of(rows) for rows, _ in own] for of in (pass_rate, greedy_correct))
        yield Subject(
            name=name,
            num_items=len(own),
            pass_at_1=mean_interval(known_units(rates, own_units), resamples, seed) if any_known(rates) else None,
            greedy=share_interval(known_units(greedy, own_units), resamples, seed) if any_known(greedy) else None,
        )


def summarise_groups(items: Sequence[ItemRows], resamples: int, seed: int) -> Siblings | None:
    """The figures over groups of items; None if no group has two."""
    groups: dict[str, list[ItemRows]] = {}
    for rows in items:
        groups.setdefault(rows[0].group or f"item {rows[0].item}", []).append(rows)
    if len(groups) == len(items):
        return None
    rates = [[rate for rows in group if (rate := pass_rate(rows)) is not None] for group in groups.values()]
    verdicts = [[greedy_correct(rows) for rows in group] for group in groups.values()]
    means = [sum(group) / len(group) for group in rates if group]
    worst = [False not in group for group in verdicts if False in group or None not in group]
    return Siblings(
        num_groups=len(groups),
        pass_at_1=mean_interval(Units.of(means), resamples, seed) if means else None,
        worst=share_interval(Units.of(worst), resamples, seed) if worst else None,
    )


def item_names(items: Sequence[ItemRows], column: str) -> tuple[str | None, ...]:
    """Each item's subject or tier; empty if no item has one."""
    found = tuple(getattr(rows[0], column) for rows in items)
    return found if any(found) else ()


def any_known(values: Iterable[object]) -> bool:
    return any(value is not None for value in values)
