"""Counting stories rewritten to the same answer, and judged: what the offline teacher does for SynthRL."""

import random
from dataclasses import replace

from dsrl.quickstart.stories import GAINS, LOSSES, CannotDo, Change, Story, parse

TRIES = 50
"""Draws of an edit before it is given up."""


def harder_same(story: Story, slip: bool, rng: random.Random) -> Story:
    """More changes, and the same number in the end: one change told as two, or two more that cancel each other out.

    With a slip one amount is wrong by one, and so is the answer. Raises `CannotDo` where somebody would always have
    less than nothing on the way."""
    edits = [_cancelling, _split] if any(change.amount > 1 for change in story.changes) else [_cancelling]
    for _ in range(TRIES):
        longer = rng.choice(edits)(story, rng)
        if slip:
            longer = _slipped(longer, rng)
        if longer.possible:
            return longer
    raise CannotDo(f"no harder story was found with the same answer as {story.text!r}")


def _cancelling(story: Story, rng: random.Random) -> Story:
    """Two new changes, one up and one down by the same amount, anywhere in the story."""
    amount = rng.randint(1, 6)
    changes = list(story.changes)
    for forms in rng.sample((GAINS, LOSSES), 2):
        changes.insert(rng.randint(0, len(changes)), Change(rng.choice(forms), amount))
    return replace(story, changes=tuple(changes))


def _split(story: Story, rng: random.Random) -> Story:
    """One change told as two in the same direction."""
    place = rng.choice([number for number, change in enumerate(story.changes) if change.amount > 1])
    change = story.changes[place]
    first = rng.randint(1, change.amount - 1)
    forms = GAINS if change.form in GAINS else LOSSES
    told = (Change(rng.choice(forms), first), Change(rng.choice(forms), change.amount - first))
    return replace(story, changes=(*story.changes[:place], *told, *story.changes[place + 1 :]))


def _slipped(story: Story, rng: random.Random) -> Story:
    place = rng.randrange(len(story.changes))
    amount = story.changes[place].amount
    wrong = replace(story.changes[place], amount=amount + rng.choice((1, -1) if amount > 1 else (1,)))
    return replace(story, changes=(*story.changes[:place], wrong, *story.changes[place + 1 :]))


def judged(original: str, rewritten: str) -> tuple[int, str]:
    """Points from 0 to 10, and why. Like any judge of quality it doesn't look at the answers."""
    try:
        old, new = parse(original), parse(rewritten)
    except CannotDo as reason:
        return 0, f"I can't read it as a counting story: {reason}."
    added = len(new.changes) - len(old.changes)
    if added <= 0:
        return 2, "It takes no more steps than the original."
    subject = 3 if (old.name, old.noun) == (new.name, new.noun) else 1
    return min(3 + added, 5) + subject + 2, f"It takes {added} more step{'s' if added > 1 else ''} and is clear."


def compared(first: Story, second: Story) -> tuple[str, str]:
    """Which of two stories is harder, `first`, `second` or `tie`, and why: the one with more changes, then the one with
    the larger numbers."""
    steps, sizes = ([measure(story) for story in (first, second)] for measure in (_steps, _largest))
    for values, words in ((steps, "steps"), (sizes, "in its largest number")):
        if values[0] != values[1]:
            harder = "first" if values[0] > values[1] else "second"
            return harder, f"{max(values)} {words} against {min(values)}."
    return "tie", "As many steps, and numbers as large."


def _steps(story: Story) -> int:
    return len(story.changes)


def _largest(story: Story) -> int:
    return max(story.counts)
