"""Items on which two models' greedy replies differ in being right: what each of them said."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from dsrl.core.component import record
from dsrl.core.errors import UserError
from dsrl.stages.evaluate.predictions import GREEDY, Prediction

FLIPPED = "flipped.jsonl"


@record
class Flip:
    """One item that only one of the two models solves."""

    change: Literal["gained", "lost"]
    """`gained`: only the second model is right."""
    item: int
    """Position in the test set, from 0."""
    subject: str | None
    input: str
    answer: str
    """Gold."""
    before: str | None
    """Answer read in the first model's greedy reply; None where there is none."""
    after: str | None
    before_reply: str | None
    after_reply: str | None


def flips(first: Sequence[Prediction], second: Sequence[Prediction]) -> list[Flip]:
    """Those of two tables of predictions on the same items, in order."""
    after = {row.item: row for row in greedy(second)}
    pairs = [(row, after[row.item]) for row in greedy(first) if row.item in after]
    return [_flip(one, two) for one, two in pairs if {one.correct, two.correct} == {True, False}]


def greedy(rows: Iterable[Prediction]) -> list[Prediction]:
    return [row for row in rows if row.index == GREEDY]


def _flip(before: Prediction, after: Prediction) -> Flip:
    return Flip(
        change="gained" if after.correct else "lost",
        item=after.item,
        subject=after.subject or before.subject,
        input=after.input,
        answer=after.answer,
        before=before.parsed,
        after=after.parsed,
        before_reply=before.text,
        after_reply=after.text,
    )


def write_flips(path: Path, found: Sequence[Flip]) -> None:
    """One JSON object a line. Raises `UserError` where that can't be written."""
    lines = (json.dumps(dataclasses.asdict(flip), ensure_ascii=False) + "\n" for flip in found)
    try:
        path.write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise UserError(f"can't write {path}", got=error.strerror, next_step="out=FILE.jsonl") from error
