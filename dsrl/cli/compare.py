"""`dsrl compare`: two evaluations of the same test items, whenever and wherever they were made."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsrl.cli.arguments import Arguments, parse, store_root
from dsrl.core.errors import UserError
from dsrl.pipeline.format_evaluation import interval
from dsrl.pipeline.store import Store, damage

if TYPE_CHECKING:
    from dsrl.data.evaluation import Evaluation, Setting, Subject
    from dsrl.stages.evaluate.difference import Flip
    from dsrl.stages.evaluate.predictions import Prediction

OPTIONS = ("store", "out", "show", "resamples", "seed")
USAGE = "dsrl compare RUN | A B [store=FOLDER] [out=flipped.jsonl] [show=5] [resamples=10000] [seed=0]"
PLACES = "a run folder, RUN:base, RUN:trained, a key of `dsrl ls evaluate` (or its beginning), a predictions.parquet"
PREDICTIONS = "predictions.parquet"
ROLES = ("base", "trained")


@dataclass(frozen=True)
class Side:
    """One of the two evaluations: what the user called it, and its table of predictions."""

    name: str
    setting: "Setting"
    predictions: "Sequence[Prediction]"


def compare(arguments: list[str]) -> int:
    """`dsrl compare RUN` (its base and its trained model) or `dsrl compare A B`."""
    from dsrl.stages.evaluate.difference import align_predictions, compare_evaluations, find_flips, write_flips
    from dsrl.stages.evaluate.summary import summarise

    given = parse("compare", arguments, options=OPTIONS, max_words=2)
    resamples, seed = given.integer("resamples", 10_000, minimum=100), given.integer("seed", 0)
    show = given.integer("show", 5)
    first, second = (read_side(word, given) for word in two_sides(given))
    common = align_predictions(first.predictions, second.predictions)
    sides = list(zip((first, second), common, strict=True))
    left_out = [count_items(side.predictions) - count_items(rows) for side, rows in sides]
    if not common[0]:
        raise UserError(
            "compare: the two evaluations have no test item in common",
            got=f"{left_out[0]} items in {first.name}, {left_out[1]} in {second.name}",
            allowed="items with the same question and gold answer, in any order",
            next_step="evaluate both with the same task.test; cached replies are reused",
        )
    before, after = (summarise(rows, side.setting, resamples=resamples, seed=seed) for side, rows in sides)
    found = compare_evaluations(before, after, resamples=resamples, seed=seed)
    flipped = find_flips(*common)
    print("\n".join([*headings(first, second), *warnings(before, after, left_out), *table(before, after, found)]))
    print("\n".join(list_flips(flipped, show)))
    if flipped:
        out = Path(given.options.get("out", "flipped.jsonl")).expanduser()
        write_flips(out, flipped)
        print(f"\nall flipped items: {out}")
    return 0


def two_sides(given: Arguments) -> tuple[str, str]:
    """What is compared; for a single run, its base and its trained model."""
    if len(given.words) == 1 and Path(given.words[0]).expanduser().is_dir():
        return f"{given.words[0]}:base", f"{given.words[0]}:trained"
    if len(given.words) != 2:
        got = " ".join(given.words) or None
        raise UserError("compare needs one run or two evaluations", got=got, allowed=PLACES, next_step=USAGE)
    return given.words[0], given.words[1]


def read_side(word: str, given: Arguments) -> Side:
    """Find a table of predictions by what the user calls it, and read it."""
    from dsrl.stages.evaluate.predictions import read_predictions

    folder, _, role = word.rpartition(":")
    path = Path(word).expanduser()
    if path.is_file():
        table = path
    elif path.is_dir():
        table = predictions_of_run(path, None, given)
    elif role in ROLES and Path(folder).expanduser().is_dir():
        table = predictions_of_run(Path(folder).expanduser(), role, given)
    else:
        table = predictions_of_key(word, given)
    return Side(word, *read_predictions(table))


def predictions_of_run(folder: Path, role: str | None, given: Arguments) -> Path:
    """The predictions of a run's model: without a role, of the trained model if there is one. A folder that holds a
    `predictions.parquet` itself, such as a store entry, stands for that file."""
    if (folder / PREDICTIONS).is_file():
        return folder / PREDICTIONS
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is not a run folder", got="no readable metrics.json", allowed=PLACES) from error
    measured = metrics.get("evaluate", {})
    roles = [name for name in ROLES if name in measured]
    wanted = role or (roles or ["base"])[-1]
    if wanted not in roles:
        raise UserError(
            f"{folder}: no {wanted} model was measured in this run", got=f"measured: {', '.join(roles) or 'none'}"
        )
    table = Path(measured[wanted].get("predictions") or "")
    if table.is_file():
        return table
    return predictions_of_key(metrics.get("keys", {}).get(f"evaluate_{wanted}", "?"), given)


def predictions_of_key(word: str, given: Arguments) -> Path:
    """The predictions of the one evaluation in the store whose key begins with `word`."""
    root = store_root(given.options.get("store"))
    entries = Store(root).entries("evaluate") if (root / "stages").is_dir() else []
    matching = [entry for entry in entries if entry.manifest.key.startswith(word)]
    if len(matching) != 1:
        keys = ", ".join(entry.manifest.key for entry in matching or entries) or "none"
        raise UserError(
            f"{word}: {'several evaluations begin like this' if matching else 'no such run, evaluation or file'}",
            got=f"evaluations in {root}: {keys}",
            allowed=PLACES,
        )
    if fault := damage(matching[0]):
        raise UserError(f"evaluation {matching[0].manifest.key} is damaged", got=fault, next_step="run it again")
    return matching[0].folder / PREDICTIONS


def count_items(predictions: "Sequence[Prediction]") -> int:
    return len({row.item for row in predictions})


def headings(first: Side, second: Side) -> Iterator[str]:
    for letter, side in (("A", first), ("B", second)):
        setting = side.setting
        yield (
            f"{letter}  {side.name}  ({setting.name}; {setting.samples_per_item} replies an item at temperature "
            f"{setting.temperature:g}, grader {setting.grader})"
        )


def warnings(before: "Evaluation", after: "Evaluation", left_out: Sequence[int]) -> Iterator[str]:
    """What limits the comparison. The items are equal, so another path or revision of the test set does not."""
    from dsrl.stages.evaluate.difference import setting_differences

    for name, warning in setting_differences(before, after).items():
        if name != "test":
            yield f"WARNING {warning}; don't compare these numbers"
    if any(left_out):
        yield (
            f"WARNING the test sets differ: {before.num_items} items are in both and compared; {left_out[0]} only in A "
            f"and {left_out[1]} only in B are left out"
        )
    for letter, each in (("A", before), ("B", after)):
        if each.num_answered < each.num_items:
            yield (
                f"WARNING {letter} answered {each.num_answered} of {each.num_items} items: its shares are over these, "
                "and differences over the items that both answered"
            )
    if before.num_units < before.num_items:
        yield (
            f"{before.num_items} items in {before.num_units} independent groups (siblings, or questions that occur "
            "more than once): intervals and tests are over groups"
        )


def table(before: "Evaluation", after: "Evaluation", found: Mapping[str, Any]) -> Iterator[str]:
    """All metrics of both, and their differences."""
    from dsrl.stages.evaluate.difference import items_and_units

    gain, greedy, flipped = found["difference"], found["greedy"], found["flipped"]
    yield f"\n{'':<14} {'A':<25} {'B':<25} B - A, in points"
    yield row("pass@1", before.pass_at_1, after.pass_at_1, format_gain(gain, format_p(gain.get("p_value"))))
    test = f"{greedy['method']} {format_p(greedy['p_value'])}, {flipped['gained']} gained, {flipped['lost']} lost"
    greedy_gain = format_gain({**greedy, "estimate": greedy.get("difference")}, test)
    yield row("greedy", before.greedy, after.greedy, greedy_gain)
    for name, words in (("format_free", "in any format"), ("format_ok", "format kept"), ("truncated", "cut off")):
        change = found["shares"][name]
        change_words = format_gain(change, format_p(change.get("p_value")))
        yield row(words, getattr(before, name), getattr(after, name), change_words)
    if missing := found["missing_as_wrong"]:
        one, two = (f"{100 * missing[name]:.1f} %" for name in ("base", "trained"))
        yield f"{'missing wrong':<14} {one:<25} {two:<25} {100 * missing['estimate']:+.1f}"
    answered = items_and_units(gain) if gain else "0 items"
    yield f"\n{answered} answered by both; {gain.get('method', 'nothing to compare')}"
    if (least := found["minimum_detectable"]) is not None:
        yield f"this many items can show a difference of {100 * least:.1f} points (with a power of 80 %)"
    for parts, words in (("subjects", "subject"), ("tiers", "difficulty tier")):
        yield from rows_by_part(words, getattr(before, parts), getattr(after, parts), found[parts])


def rows_by_part(
    words: str, before: "Sequence[Subject]", after: "Sequence[Subject]", found: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """One row per subject or tier, also if only one of the two evaluations has it."""
    ours, theirs = ({part.name: part for part in parts} for parts in (before, after))
    if found:
        yield f"\npass@1 by {words} (of twenty without a true difference, one interval excludes 0)"
    for name, gain in found.items():
        one, two = ours.get(name), theirs.get(name)
        change = f"{format_gain(gain, format_p(gain.get('p_value')))}  {gain.get('num_items', 0)} items"
        yield row(name, one and one.pass_at_1, two and two.pass_at_1, change)


def row(name: str, before: Any, after: Any, change: str) -> str:
    one, two = (interval(share.value, share.low, share.high) if share else "-" for share in (before, after))
    return f"{name:<14} {one:<25} {two:<25} {change}"


def format_gain(gain: Mapping[str, Any], rest: str) -> str:
    """`+31.1 (27.9 to 34.4)  p < 0.001`."""
    if gain.get("estimate") is None:
        return "no item was answered by both"
    value, low, high = (f"{100 * gain[name]:+.1f}" for name in ("estimate", "low", "high"))
    return f"{value} ({low} to {high})  {rest}"


def format_p(value: float | None) -> str:
    return "" if value is None else "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def list_flips(flipped: "Sequence[Flip]", limit: int) -> Iterator[str]:
    """The first items of each kind that only one of the two models answers correctly."""
    for change, words in (("gained", "only B is correct"), ("lost", "only A is correct")):
        own = [flip for flip in flipped if flip.change == change]
        if own:
            yield f"\n{change}: {words} on {len(own)} items, in greedy decoding"
        for flip in own[:limit]:
            subject = f" [{flip.subject}]" if flip.subject else ""
            yield f"  item {flip.item}{subject}: {shorten(flip.input, 90)}"
            yield f"    gold {shorten(flip.answer)}   A {shorten(flip.before)}   B {shorten(flip.after)}"


def shorten(text: str | None, limit: int = 40) -> str:
    """One line of at most `limit` characters."""
    if text is None:
        return "no answer"
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."
