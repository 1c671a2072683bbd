"""Compare two evaluations of the same items: how much better the second is, how certain that is, and on which items."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from dsrl.core.component import record
from dsrl.core.digest import text_digest
from dsrl.core.errors import UserError
from dsrl.data.difficulty_tiers import sort_tiers
from dsrl.data.evaluation import Evaluation, Setting
from dsrl.stages.evaluate.predictions import GREEDY, Prediction
from dsrl.stages.evaluate.statistics import (
    DIFFERENCES,
    MAX_BOOTSTRAPPED,
    Units,
    detectable_difference,
    mcnemar_p_value,
    mean_interval,
    sign_flip_p_value,
)

FLIPPED = "flipped.jsonl"
BOOTSTRAP = "paired bootstrap (BCa, expanded for small samples)"
PSEUDO_ITEMS = "Student's t with a pseudo-item at each end"
SETTING_WARNINGS = {
    "test": "the two models were measured on different test sets",
    "grader": "the two models were graded differently",
    "samples_per_item": "the two models gave different numbers of replies",
    "temperature": "the two models were sampled at different temperatures",
    "top_p": "the two models were sampled with different top_p",
    "max_tokens": "the two models had different token limits",
}


def setting_differences(base: Setting, trained: Setting) -> dict[str, str]:
    """Fields of the setting in which two evaluations differ, each with a warning."""
    return {
        name: f"{words} ({name}: {getattr(base, name)} and {getattr(trained, name)})"
        for name, words in SETTING_WARNINGS.items()
        if getattr(base, name) != getattr(trained, name)
    }


def missing_items(base: Evaluation, trained: Evaluation) -> list[str]:
    """Warnings about items that a model did not answer. A content filter, for one, drops items that are not a random
    draw."""
    return [
        f"{model.name} answered {model.num_answered} of {model.num_items} items"
        for model in (base, trained)
        if model.num_answered < model.num_items
    ]


def compare_evaluations(base: Evaluation, trained: Evaluation, *, resamples: int, seed: int) -> dict[str, Any]:
    """All figures of a comparison, each over the items that both models answered. Both evaluations must list the same
    items in the same order. `difference` is empty if they have no answered item in common."""
    units = base.item_units or trained.item_units

    def change(before: Sequence[Any], after: Sequence[Any]) -> dict[str, Any]:
        return mean_difference(before, after, units, resamples, seed)

    shares = {
        name: change(base.item_shares[name], trained.item_shares[name])
        for name in base.item_shares
        if name in trained.item_shares
    }
    gains = paired_gains(base.item_rates, trained.item_rates, units)
    return {
        "difference": change(base.item_rates, trained.item_rates),
        "greedy": {**_greedy(base, trained, units, resamples, seed)},
        "flipped": dict(zip(("gained", "lost"), _flip_counts(base, trained), strict=True)),
        "minimum_detectable": detectable_difference(gains) if gains else None,
        "format_free": shares.get("format_free", {}).get("estimate"),
        "shares": shares,
        "missing_as_wrong": _missing_as_wrong(base, trained),
        "subjects": difference_by_name(base, trained, "item_subjects", resamples, seed),
        "tiers": difference_by_name(base, trained, "item_tiers", resamples, seed),
    }


def mean_difference(
    before: Sequence[Any], after: Sequence[Any], units: Sequence[int], resamples: int, seed: int
) -> dict[str, Any]:
    """The mean change over the items with both values, its 95 % interval and p-value; empty without such items."""
    gains = paired_gains(before, after, units)
    if gains is None:
        return {}
    gain = mean_interval(gains, resamples, seed, DIFFERENCES)
    interval = PSEUDO_ITEMS if gains.is_sparse or len(gains) > MAX_BOOTSTRAPPED else BOOTSTRAP
    num_items = int(gains.counts.sum())
    over = "items" if num_items == len(gains) else "independent groups of items"
    return {
        "estimate": gain.value,
        "low": gain.low,
        "high": gain.high,
        "p_value": sign_flip_p_value(gains, resamples, seed),
        "method": f"{interval} over {over}, p by random sign flips",
        "num_items": num_items,
        "num_units": len(gains),
    }


def paired_gains(before: Sequence[Any], after: Sequence[Any], units: Sequence[int] = ()) -> Units | None:
    """What the items that both models answered gained, by unit; None without any."""
    named = units or range(len(before))
    pairs = [(old, new, unit) for old, new, unit in zip(before, after, named, strict=True) if None not in (old, new)]
    if not pairs:
        return None
    return Units.of([float(new) - float(old) for old, new, _ in pairs], [unit for _, _, unit in pairs])


def difference_by_name(
    base: Evaluation, trained: Evaluation, column: str, resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """The difference in pass@1 on the items of each subject or tier."""
    names = getattr(trained, column) or getattr(base, column)
    units = base.item_units or trained.item_units or range(base.num_items)
    found = {}
    for name in sort_tiers(names):
        places = [place for place, known in enumerate(names) if known == name]
        before, after = ([model.item_rates[place] for place in places] for model in (base, trained))
        found[name] = mean_difference(before, after, [units[place] for place in places], resamples, seed)
    return found


def summary_line(base: Evaluation, trained: Evaluation, difference: Mapping[str, Any]) -> str:
    """`pass@1 41.2 % -> 72.3 % (+31.1, 95 % interval 27.9 to 34.4, 400 items)`."""
    change = f"pass@1 {100 * base.pass_at_1.value:.1f} % -> {100 * trained.pass_at_1.value:.1f} %"
    if not difference:
        return f"{change} (no item was answered by both)"
    estimate, low, high = (100 * difference[name] for name in ("estimate", "low", "high"))
    items = items_and_units(difference)
    return f"{change} ({estimate:+.1f}, 95 % interval {low:.1f} to {high:.1f}, {items})"


def items_and_units(difference: Mapping[str, Any]) -> str:
    """`400 items`, or `300 items in 12 independent groups`."""
    items, units = difference["num_items"], difference["num_units"]
    return f"{items} items" if units == items else f"{items} items in {units} independent groups"


def _greedy(base: Evaluation, trained: Evaluation, units: Sequence[int], resamples: int, seed: int) -> dict[str, Any]:
    """The change of the greedy share. McNemar's test needs independent items; with fewer units, signs of whole units
    are flipped instead."""
    found = mean_difference(base.item_greedy, trained.item_greedy, units, resamples, seed)
    independent = not found or found["num_units"] == found["num_items"]
    interval = {"difference": found["estimate"], "low": found["low"], "high": found["high"]} if found else {}
    return {
        "base": dataclasses.asdict(base.greedy),
        "trained": dataclasses.asdict(trained.greedy),
        "p_value": mcnemar_p_value(*_flip_counts(base, trained)) if independent else found["p_value"],
        "method": "exact McNemar" if independent else "random sign flips of groups",
        **interval,
    }


def _flip_counts(base: Evaluation, trained: Evaluation) -> tuple[int, int]:
    """Items gained and lost by greedy replies, among those that both models answered."""
    pairs = [pair for pair in zip(base.item_greedy, trained.item_greedy, strict=True) if None not in pair]
    return pairs.count((False, True)), pairs.count((True, False))


def _missing_as_wrong(base: Evaluation, trained: Evaluation) -> dict[str, float] | None:
    """pass@1 of both models if items without a reply counted as wrong; None if each answered all items."""
    if base.num_answered == base.num_items and trained.num_answered == trained.num_items:
        return None
    before, after = (sum(rate or 0.0 for rate in model.item_rates) / model.num_items for model in (base, trained))
    return {"base": before, "trained": after, "estimate": after - before}


@record
class Flip:
    """An item that only one of two models solves greedily."""

    change: Literal["gained", "lost"]
    """`gained`: only the second model is right."""
    item: int
    """Position in the test set, from 0."""
    subject: str | None
    input: str
    answer: str
    """Gold."""
    before: str | None
    """Answer in the first model's greedy reply; None if there is none."""
    after: str | None
    before_reply: str | None
    after_reply: str | None


def align_predictions(
    first: Sequence[Prediction], second: Sequence[Prediction]
) -> tuple[list[Prediction], list[Prediction]]:
    """The items that both tables have, in the first one's order and with its numbers. Items are paired by question and
    gold answer, so order and size of the test sets may differ; a question that occurs several times is paired in
    order."""
    has_content = all(row.content for row in (*first, *second))

    def items(rows: Sequence[Prediction]) -> dict[tuple[str, str, int], list[Prediction]]:
        seen: Counter[tuple[str, str]] = Counter()
        found = {}
        for _, group in groupby(rows, key=lambda row: row.item):
            own = list(group)
            key = (str(own[0].content) if has_content else text_digest(own[0].input), own[0].answer)
            seen[key] += 1
            found[(*key, seen[key])] = own
        return found

    ours, theirs = items(first), items(second)
    pairs = [(rows, theirs[key]) for key, rows in ours.items() if key in theirs]
    renumbered = [dataclasses.replace(row, item=rows[0].item) for rows, others in pairs for row in others]
    return [row for rows, _ in pairs for row in rows], renumbered


def find_flips(first: Iterable[Prediction], second: Iterable[Prediction]) -> list[Flip]:
    """Items whose greedy verdicts differ between two tables of predictions on the same items, in order."""
    greedy = {row.item: row for row in second if row.index == GREEDY}
    pairs = [(row, greedy[row.item]) for row in first if row.index == GREEDY and row.item in greedy]
    return [
        Flip(
            change="gained" if after.correct else "lost",
            item=after.item,
            subject=after.subject or before.subject,
            input=after.input,
            answer=after.answer,
            before=before.parsed,
            after=after.parsed,
            before_reply=before.text,
            after_reply=after.text,
        )
        for before, after in pairs
        if {before.correct, after.correct} == {True, False}
    ]


def write_flips(path: Path, flips: Sequence[Flip]) -> None:
    """Write one JSON object a line. Raises `UserError` if the file can't be written."""
    lines = (json.dumps(dataclasses.asdict(flip), ensure_ascii=False) + "\n" for flip in flips)
    try:
        path.write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise UserError(f"can't write {path}", got=error.strerror, next_step="give out=FILE.jsonl") from error
