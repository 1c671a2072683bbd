"""Rewriting counting stories to the same answer, and judging them: the offline teacher's part in SynthRL."""

import random
from dataclasses import replace

from dsrl.quickstart.stories import GAINS, LOSSES, CannotDo, Change, Story, parse

MAX_ATTEMPTS = 50


def harder_same(story: Story, slip: bool, rng: random.Random) -> Story:
    """Make a story longer but keep its answer: split one change in two, or insert two that cancel.

    With a slip, one amount and so the answer is off by one. Raises `CannotDo` if every attempt has a negative count.
    """
    edits = (
        [_insert_cancelling, _split_change]
        if any(change.amount > 1 for change in story.changes)
        else [_insert_cancelling]
    )
    for _ in range(MAX_ATTEMPTS):
        longer = rng.choice(edits)(story, rng)
        if slip:
            longer = _add_slip(longer, rng)
        if longer.possible:
            return longer
    raise CannotDo(f"no harder story was found with the same answer as {story.text!r}")


def _insert_cancelling(story: Story, rng: random.Random) -> Story:
    """Insert a gain and a loss of the same amount at random positions."""
    amount = rng.randint(1, 6)
    changes = list(story.changes)
    for forms in rng.sample((GAINS, LOSSES), 2):
        changes.insert(rng.randint(0, len(changes)), Change(rng.choice(forms), amount))
    return replace(story, changes=tuple(changes))


def _split_change(story: Story, rng: random.Random) -> Story:
    """Split one change into two in the same direction."""
    place = rng.choice([number for number, change in enumerate(story.changes) if change.amount > 1])
    change = story.changes[place]
    first = rng.randint(1, change.amount - 1)
    forms = GAINS if change.form in GAINS else LOSSES
    parts = (Change(rng.choice(forms), first), Change(rng.choice(forms), change.amount - first))
    return replace(story, changes=(*story.changes[:place], *parts, *story.changes[place + 1 :]))


def _add_slip(story: Story, rng: random.Random) -> Story:
    place = rng.randrange(len(story.changes))
    amount = story.changes[place].amount
    wrong = replace(story.changes[place], amount=amount + rng.choice((1, -1) if amount > 1 else (1,)))
    return replace(story, changes=(*story.changes[:place], wrong, *story.changes[place + 1 :]))


def judge(original: str, rewritten: str) -> tuple[int, str]:
    """A score from 0 to 10, and the reason. Like any quality judge it does not compare answers."""
    try:
        old, new = parse(original), parse(rewritten)
    except CannotDo as reason:
        return 0, f"I can't read it as a counting story: {reason}."
    added = len(new.changes) - len(old.changes)
    if added <= 0:
        return 2, "It takes no more steps than the original."
    subject = 3 if (old.name, old.noun) == (new.name, new.noun) else 1
    return min(3 + added, 5) + subject + 2, f"It takes {added} more step{'s' if added > 1 else ''} and is clear."


def compare_difficulty(first: Story, second: Story) -> tuple[str, str]:
    """Which story is harder, `first`, `second` or `tie`, and why: by number of changes, then by the largest number."""
    steps = [len(story.changes) for story in (first, second)]
    largest = [max(story.counts) for story in (first, second)]
    for values, words in ((steps, "steps"), (largest, "in its largest number")):
        if values[0] != values[1]:
            harder = "first" if values[0] > values[1] else "second"
            return harder, f"{max(values)} {words} against {min(values)}."
    return "tie", "As many steps, and numbers as large."
