"""What a model answered, reply by reply: the side table `predictions.parquet`, and the shares made of it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from dsrl.data import Item
from dsrl.grade import Grader
from dsrl.model import Reply
from dsrl.part import record

GREEDY = -1


@record
class Prediction:
    """One reply to one test item. Where no reply came, everything graded is None: missing, not wrong."""

    item: int
    """Position in the test set, from 0."""
    index: int
    """Number of the sampled reply, from 0; -1 for the greedy one."""
    input: str
    answer: str
    """Gold."""
    text: str | None
    parsed: str | None = None
    """The answer read where the instruction wants it."""
    correct: bool | None = None
    format_ok: bool | None = None
    correct_anywhere: bool | None = None
    """Right in any format."""
    finish_reason: str | None
    error: str | None
    """Why there is no reply."""


def predict(
    items: Sequence[Item], sampled: Sequence[Sequence[Reply]], greedy: Sequence[Sequence[Reply]], grader: Grader
) -> list[Prediction]:
    """Grade all replies; item by item, the greedy one first."""
    return [
        prediction(number, index, item, reply, grader)
        for number, (item, draws, (best,)) in enumerate(zip(items, sampled, greedy, strict=True))
        for index, reply in enumerate((best, *draws), GREEDY)
    ]


def prediction(number: int, index: int, item: Item, reply: Reply, grader: Grader) -> Prediction:
    """One graded reply."""
    ungraded = Prediction(
        item=number,
        index=index,
        input=item.input,
        answer=item.answer,
        text=reply.text,
        finish_reason=reply.finish_reason,
        error=reply.error,
    )
    if reply.text is None:
        return ungraded
    grader = grader.given(item.input)
    grade = grader.grade(reply.text, item.answer)
    return replace(
        ungraded,
        parsed=grade.parsed,
        correct=grade.correct,
        format_ok=grade.format_ok,
        correct_anywhere=grader.correct_anywhere(reply.text, item.answer),
    )


def share(values: Iterable[bool | None]) -> float | None:
    """Share of true values among those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
