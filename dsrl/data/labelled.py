"""Labelled data of the user's as questions with worked answers: seeds, demos and the baselines on human data."""

import random
from typing import TYPE_CHECKING

from dsrl.core.component import record
from dsrl.core.digest import digest
from dsrl.data.fields import lookup, text
from dsrl.data.source import Item, Source
from dsrl.graders import Grader

if TYPE_CHECKING:
    from collections.abc import Iterator


@record
class Worked:
    """One labelled question."""

    input: str
    answer: str
    solution: str | None
    """In the task's output format: the gold column where it is one, else the bare answer as the format wants it. None
    where the answer kind can't say how that is written."""


def drawn(source: Source, grader: Grader, count: int | None, seed: int) -> "Iterator[Worked]":
    """A seeded draw of rows, all of them for None: a smaller draw is the beginning of a larger one."""
    rows = list(zip(source.rows(), source.load(grader), strict=True))
    random.Random(digest([seed, "gold"])).shuffle(rows)
    for row, item in rows[:count]:
        solution = in_format(text(lookup(row, source.output)), item, grader)
        yield Worked(input=item.input, answer=item.answer, solution=solution)


def in_format(gold: str, item: Item, grader: Grader) -> str | None:
    """A gold answer as a model would have to give it; None where the answer kind can't say how that is written."""
    given = grader.for_question(item.input)
    if given.parse(gold) is not None:
        return gold
    return given.write(item.answer) if type(grader).write is not Grader.write else None
