"""Worked examples drawn from the user's labelled data, for seeds, demos and the human-data baselines."""

import random
from collections.abc import Iterator

from dsrl.core.component import record
from dsrl.core.digest import digest
from dsrl.data.fields import cell_text, lookup
from dsrl.data.source import Item, Source
from dsrl.graders import Grader


@record
class WorkedExample:
    input: str
    answer: str
    solution: str | None
    """In the task's output format: the gold cell if it follows the format, else the formatted answer. None if the
    answer kind can't write one."""


def draw_worked_examples(source: Source, grader: Grader, count: int | None, seed: int) -> Iterator[WorkedExample]:
    """Yield `count` rows (None: all) in seeded order; a smaller draw is a prefix of a larger one."""
    rows = list(zip(source.rows(), source.load(grader), strict=True))
    random.Random(digest([seed, "gold"])).shuffle(rows)
    for row, item in rows[:count]:
        solution = format_answer(cell_text(lookup(row, source.output)), item, grader)
        yield WorkedExample(input=item.input, answer=item.answer, solution=solution)


def format_answer(gold: str, item: Item, grader: Grader) -> str | None:
    """`gold` if it follows the output format, else the canonical answer in that format; None if the answer kind can't
    write one."""
    question_grader = grader.for_question(item.input)
    if question_grader.parse(gold) is not None:
        return gold
    return question_grader.write(item.answer) if type(grader).write is not Grader.write else None
