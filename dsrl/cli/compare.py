"""`dsrl compare`: two measured models on the same test items, whenever and wherever they were measured."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsrl.cli.arguments import parse
from dsrl.cli.find_predictions import Side, both, side
from dsrl.core.errors import UserError
from dsrl.pipeline.format_evaluation import interval

if TYPE_CHECKING:
    from dsrl.data.evaluation import Evaluation, Subject
    from dsrl.stages.evaluate.flips import Flip

OPTIONS = ("store", "out", "show", "resamples", "seed")


def compare(arguments: list[str]) -> int:
    """The verb."""
    from dsrl.stages.evaluate.difference import difference
    from dsrl.stages.evaluate.flips import flips, write_flips
    from dsrl.stages.evaluate.summary import summarise

    given = parse("compare", arguments, options=OPTIONS, max_words=2)
    words, options = given.words, given.options
    resamples, seed = given.integer("resamples", 10_000, minimum=100), given.integer("seed", 0)
    show = given.integer("show", 5)
    first, second = (side(word, options) for word in both(words))
    check_items(first, second)
    before, after = (
        summarise(each.predictions, each.setting, resamples=resamples, seed=seed) for each in (first, second)
    )
    found = difference(before, after, resamples=resamples, seed=seed)
    flipped = flips(first.predictions, second.predictions)
    print("\n".join([*heads(first, second), *warnings(first, second), *table(before, after, found)]))
    print("\n".join(shown(flipped, show)))
    if flipped:
        out = Path(options.get("out", "flipped.jsonl")).expanduser()
        write_flips(out, flipped)
        print(f"\nall of them: {out}")
    return 0


def check_items(first: Side, second: Side) -> None:
    """Items are paired by their place, so both must have the same questions and gold answers. Raises `UserError`."""
    ours, theirs = ({row.item: (row.input, row.answer) for row in each.predictions} for each in (first, second))
    if ours == theirs:
        return
    common = len(set(ours.values()) & set(theirs.values()))
    raise UserError(
        "compare: the two were measured on different test sets, and their difference means nothing",
        got=f"{len(ours)} items in {first.name}, {len(theirs)} in {second.name}; {common} questions with their gold "
        "answers are in both",
        next_step="evaluate both with the same task.test; replies that are there already aren't asked for again",
    )


def heads(first: Side, second: Side) -> Iterator[str]:
    for letter, each in (("A", first), ("B", second)):
        setting = each.setting
        yield (
            f"{letter}  {each.name}  ({setting.name}; {setting.samples_per_item} replies an item at temperature "
            f"{setting.temperature:g}, grader {setting.grader})"
        )


def warnings(first: Side, second: Side) -> Iterator[str]:
    """The items are the same, so the same data under another path or revision is no doubt."""
    from dsrl.stages.evaluate.difference import DOUBTS, doubts

    for doubt in doubts(first.setting, second.setting):
        if not doubt.startswith(DOUBTS["test"]):
            yield f"WARNING {doubt}; don't compare these numbers"


def table(before: "Evaluation", after: "Evaluation", found: Mapping[str, Any]) -> Iterator[str]:
    """All figures of both, and what differs."""
    gain, greedy = found["difference"], found["greedy"]
    yield f"\n{'':<14} {'A':<25} {'B':<25} B - A, in points"
    yield row("pass@1", before.pass_at_1, after.pass_at_1, _gain(gain, _p(gain.get("p_value"))))
    flipped = found["flipped"]
    told = f"exact McNemar {_p(greedy['p_value'])}, {flipped['gained']} gained, {flipped['lost']} lost"
    yield row("greedy", before.greedy, after.greedy, _gain({**greedy, "estimate": greedy.get("difference")}, told))
    for name, words in (("format_free", "in any format"), ("format_ok", "format kept"), ("truncated", "cut off")):
        one, two = getattr(before, name), getattr(after, name)
        yield row(words, one, two, f"{100 * (two.value - one.value):+.1f}")
    yield f"\n{gain.get('num_items', 0)} items answered by both; {gain.get('method', 'nothing to compare')}"
    if (least := found["minimum_detectable"]) is not None:
        yield f"so many items can show a difference of {100 * least:.1f} points (found 4 times in 5)"
    for parts, words in (("subjects", "subject"), ("tiers", "tier of difficulty")):
        yield from by_part(words, getattr(before, parts), getattr(after, parts), found[parts])


def by_part(
    words: str, before: "Sequence[Subject]", after: "Sequence[Subject]", found: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """By subject or tier; also where only one of the two was measured with these."""
    ours, theirs = ({part.name: part for part in each} for each in (before, after))
    if found:
        yield f"\npass@1 by {words} (of twenty that didn't change, one has an interval without 0)"
    for name, gain in found.items():
        one, two = ours.get(name), theirs.get(name)
        told = f"{_gain(gain, _p(gain.get('p_value')))}  {gain.get('num_items', 0)} items"
        yield row(name, one and one.pass_at_1, two and two.pass_at_1, told)


def row(name: str, before: Any, after: Any, change: str) -> str:
    shares = (interval(each.value, each.low, each.high) if each else "-" for each in (before, after))
    one, two = shares
    return f"{name:<14} {one:<25} {two:<25} {change}"


def _gain(gain: Mapping[str, Any], rest: str) -> str:
    """`+31.1 (27.9 to 34.4)  p < 0.001`."""
    if gain.get("estimate") is None:
        return "no item was answered by both"
    points = (f"{100 * gain[name]:+.1f}" for name in ("estimate", "low", "high"))
    value, low, high = points
    return f"{value} ({low} to {high})  {rest}"


def _p(value: float | None) -> str:
    return "" if value is None else "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def shown(flipped: "Sequence[Flip]", most: int) -> Iterator[str]:
    """The first items that only one of the two solves, of each kind."""
    for change, words in (("gained", "only B is right"), ("lost", "only A is right")):
        own = [flip for flip in flipped if flip.change == change]
        if own:
            yield f"\n{change}: {words} on {len(own)} items, greedily"
        for flip in own[:most]:
            subject = f" [{flip.subject}]" if flip.subject else ""
            yield f"  item {flip.item}{subject}: {_short(flip.input, 90)}"
            yield f"    gold {_short(flip.answer)}   A {_short(flip.before)}   B {_short(flip.after)}"


def _short(text: str | None, most: int = 40) -> str:
    if text is None:
        return "no answer"
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 3]}..."
