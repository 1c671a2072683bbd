"""What a model answered, reply by reply: the table `predictions.parquet`, which says itself what was measured how."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dsrl.core.component import record
from dsrl.core.errors import UserError
from dsrl.core.parquet import read_about, read_table, write_table
from dsrl.data.evaluation import Setting
from dsrl.data.model import Reply
from dsrl.data.source import Item
from dsrl.graders import Grader

PREDICTIONS = "predictions.parquet"
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
    subject: str | None = None
    """The row's column that `task.test.subject` names."""
    group: str | None = None
    """Of its siblings: the row's column that `task.test.group` names."""
    tier: str | None = None
    """How hard it is by `tiers`: easy, medium, hard or unrated; None where none were given."""
    data: str | None = None
    """The row's columns that `task.test.keep` names, as a JSON object."""
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
    items: Sequence[Item],
    sampled: Sequence[Sequence[Reply]],
    greedy: Sequence[Sequence[Reply]],
    grader: Grader,
    tiers: Sequence[str | None] = (),
) -> list[Prediction]:
    """Grade all replies; item by item, the greedy one first. `tiers`: of each item, if they are known."""
    known = tiers or [None] * len(items)
    return [
        replace(prediction(number, index, item, reply, grader), tier=tier)
        for number, (item, draws, (best,), tier) in enumerate(zip(items, sampled, greedy, known, strict=True))
        for index, reply in enumerate((best, *draws), GREEDY)
    ]


def prediction(number: int, index: int, item: Item, reply: Reply, grader: Grader) -> Prediction:
    """One graded reply."""
    ungraded = Prediction(
        item=number,
        index=index,
        input=item.input,
        answer=item.answer,
        subject=item.subject,
        group=item.group,
        data=json.dumps(item.data, ensure_ascii=False, default=str) if item.data else None,
        text=reply.text,
        finish_reason=reply.finish_reason,
        error=reply.error,
    )
    if reply.text is None:
        return ungraded
    grader = grader.for_question(item.input)
    grade = grader.grade(reply.text, item.answer)
    return replace(
        ungraded,
        parsed=grade.parsed,
        correct=grade.correct,
        format_ok=grade.format_ok,
        correct_anywhere=grader.correct_anywhere(reply.text, item.answer),
    )


def write(path: Path, rows: Sequence[Prediction], setting: Setting) -> None:
    """As a table that any Parquet reader opens; the setting stands in the file's metadata."""
    write_table(path, rows, Prediction, setting)


def read(path: Path) -> tuple[Setting, tuple[Prediction, ...]]:
    """A table of predictions. Raises `UserError` for a file that is none."""
    import pyarrow
    from pydantic import ValidationError

    try:
        setting, rows = read_about(path, Setting), read_table(path, Prediction)
    except (pyarrow.ArrowInvalid, ValidationError) as error:
        what = str(error).partition("\n")[0]
        raise UserError(
            f"{path} holds no predictions of dsrl", got=what, next_step="dsrl evaluate makes them"
        ) from error
    if setting is None or not rows:
        raise UserError(
            f"{path} doesn't say what was measured how",
            got="no rows" if setting else "predictions of an older dsrl, or a copy by another program",
            next_step="evaluate again, which asks for no reply anew",
        )
    return setting, rows
