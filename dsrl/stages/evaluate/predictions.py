"""Graded replies to test items, one row each: the table `predictions.parquet`."""

import json
from collections import Counter
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
    """One reply to one test item. If no reply came, all grades are None: missing, not wrong."""

    item: int
    """Position in the test set, from 0."""
    index: int
    """Number of the sampled reply, from 0; -1 for the greedy one."""
    input: str
    content: str | None = None
    """Digest of the question's words and images; the same for repeated questions."""
    answer: str
    """Gold."""
    subject: str | None = None
    """The row's column `task.test.subject`."""
    group: str | None = None
    """The row's column `task.test.group`; items with the same value are not independent."""
    tier: str | None = None
    """Difficulty: easy, medium, hard or unrated; None without ratings."""
    data: str | None = None
    """The row's columns `task.test.keep`, as a JSON object."""
    text: str | None
    parsed: str | None = None
    """The answer found where the output instruction asks for it."""
    correct: bool | None = None
    format_ok: bool | None = None
    correct_anywhere: bool | None = None
    """Whether the right answer stands anywhere in the reply."""
    finish_reason: str | None
    error: str | None
    """Why there is no reply."""


def grade_replies(
    items: Sequence[Item],
    sampled: Sequence[Sequence[Reply]],
    greedy: Sequence[Sequence[Reply]],
    grader: Grader,
    tiers: Sequence[str | None] = (),
) -> list[Prediction]:
    """Grade all replies, item by item, the greedy reply of each first. `tiers` has one entry an item, or none."""
    return [
        replace(_grade(number, index, item, reply, grader), tier=tier)
        for number, (item, replies, (best,), tier) in enumerate(
            zip(items, sampled, greedy, tiers or [None] * len(items), strict=True)
        )
        for index, reply in enumerate((best, *replies), GREEDY)
    ]


def _grade(number: int, index: int, item: Item, reply: Reply, grader: Grader) -> Prediction:
    ungraded = Prediction(
        item=number,
        index=index,
        input=item.input,
        content=item.content_key,
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


def write_predictions(path: Path, rows: Sequence[Prediction], setting: Setting) -> None:
    """Write a Parquet table; the setting goes into the file's metadata, so that a copy can still be compared."""
    write_table(path, rows, Prediction, setting)


def read_predictions(path: Path) -> tuple[Setting, tuple[Prediction, ...]]:
    """Read a table of predictions, sorted by item and reply. Raises `UserError` for any other file, a table without its
    setting, and a reply that occurs twice."""
    import pyarrow
    from pydantic import ValidationError

    try:
        setting, rows = read_about(path, Setting), read_table(path, Prediction)
    except (pyarrow.ArrowInvalid, ValidationError) as error:
        raise UserError(
            f"{path} is not a table of predictions",
            got=str(error).partition("\n")[0],
            next_step="dsrl evaluate writes predictions.parquet",
        ) from error
    if setting is None or not rows:
        raise UserError(
            f"{path} does not record which model was measured, on what and how",
            got="no rows" if setting else "a table of an older dsrl, or a copy written by another program",
            next_step="run dsrl evaluate again; cached replies are reused",
        )
    (place, count), *_ = Counter((row.item, row.index) for row in rows).most_common(1)
    if count > 1:
        raise UserError(
            f"{path}: the same reply occurs more than once",
            got=f"item {place[0]}, index {place[1]}: {count} rows",
            next_step="remove the duplicate rows, or run dsrl evaluate again; cached replies are reused",
        )
    return setting, tuple(sorted(rows, key=lambda row: (row.item, row.index)))
