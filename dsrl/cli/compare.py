"""`dsrl compare`: two measured models on the same test items, whenever and wherever they were measured."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsrl.cli.arguments import split, whole
from dsrl.cli.find_predictions import Side, both, side
from dsrl.cli.format_evaluation import interval
from dsrl.core.errors import UserError

if TYPE_CHECKING:
    from dsrl.pipeline.state import Evaluation, Subject
    from dsrl.stages.evaluate.difference import Flip
    from dsrl.stages.evaluate.predictions import Prediction

OPTIONS = ("store", "out", "show", "resamples", "seed")


def compare(arguments: list[str]) -> int:
    """The verb."""
    from dsrl.stages.evaluate.difference import align_predictions, compare_evaluations, find_flips, write_flips
    from dsrl.stages.evaluate.summary import summarise

    words, options = split(arguments, "compare", OPTIONS)
    resamples, seed = whole(options, "resamples", 10_000, least=100), whole(options, "seed", 0, least=0)
    show = whole(options, "show", 5, least=0)
    first, second = (side(word, options) for word in both(words))
    pairs = align_predictions(first.predictions, second.predictions)
    sides = list(zip((first, second), pairs, strict=True))
    left_out = [num_items(each.predictions) - num_items(rows) for each, rows in sides]
    if not pairs[0]:
        raise UserError(
            "compare: the two evaluations have no test item in common",
            got=f"{left_out[0]} items in {first.name}, {left_out[1]} in {second.name}",
            allowed="items with the same question and gold answer, in any order",
            next_step="evaluate both with the same task.test; cached replies are reused",
        )
    before, after = (summarise(rows, each.setting, resamples=resamples, seed=seed) for each, rows in sides)
    found = compare_evaluations(before, after, resamples=resamples, seed=seed)
    flips = find_flips(*pairs)
    print("\n".join([*heads(first, second), *warnings(before, after, left_out), *table(before, after, found)]))
    print("\n".join(shown(flips, show)))
    if flips:
        out = Path(options.get("out", "flipped.jsonl")).expanduser()
        write_flips(out, flips)
        print(f"\nall of them: {out}")
    return 0


def num_items(predictions: "Sequence[Prediction]") -> int:
    return len({row.item for row in predictions})


def heads(first: Side, second: Side) -> Iterator[str]:
    for letter, each in (("A", first), ("B", second)):
        setting = each.setting
        yield (
            f"{letter}  {each.name}  ({setting.name}; {setting.samples_per_item} replies an item at temperature "
            f"{setting.temperature:g}, grader {setting.grader})"
        )


def warnings(before: "Evaluation", after: "Evaluation", left_out: Sequence[int]) -> Iterator[str]:
    """What makes the two hard to compare. The items are equal, so another path or revision of the test set is no
    reason."""
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
    """All figures of both, and what differs."""
    from dsrl.stages.evaluate.difference import items_and_units

    gain, greedy = found["difference"], found["greedy"]
    yield f"\n{'':<14} {'A':<25} {'B':<25} B - A, in points"
    yield row("pass@1", before.pass_at_1, after.pass_at_1, _gain(gain, _p(gain.get("p_value"))))
    flipped = found["flipped"]
    test = f"{greedy['method']} {_p(greedy['p_value'])}, {flipped['gained']} gained, {flipped['lost']} lost"
    yield row("greedy", before.greedy, after.greedy, _gain({**greedy, "estimate": greedy.get("difference")}, test))
    for name, words in (("format_free", "in any format"), ("format_ok", "format kept"), ("truncated", "cut off")):
        change = found["shares"][name]
        yield row(words, getattr(before, name), getattr(after, name), _gain(change, _p(change.get("p_value"))))
    if missing := found["missing_as_wrong"]:
        shares = (f"{100 * missing[name]:.1f} %" for name in ("base", "trained"))
        yield f"{'missing wrong':<14} {next(shares):<25} {next(shares):<25} {100 * missing['estimate']:+.1f}"
    answered = items_and_units(gain) if gain else "0 items"
    yield f"\n{answered} answered by both; {gain.get('method', 'nothing to compare')}"
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
