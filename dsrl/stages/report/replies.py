"""How long the target's replies are, to seeds and to their variants."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

COLUMNS = ("sample", "text", "correct", "finish_reason")


@dataclass(frozen=True)
class Lengths:
    """Of the replies that came to an end."""

    replies: int
    words: float
    """Mean number of words; as the next ones."""
    median_words: float
    right_words: float | None
    """Of right replies only; None where there is none."""
    right_lines: float | None
    """Lines of right replies that aren't empty: what the paper's code counts as reasoning steps."""


def lengths(path: Path | None, ids: Collection[str]) -> Lengths | None:
    """Of the replies to these samples, by the stage's side table; None where there are none."""
    found = [_measured(row) for row in _replies(path, frozenset(ids))]
    if not found:
        return None
    right = [(words, lines) for words, lines, correct in found if correct]
    return Lengths(
        replies=len(found),
        words=fmean(words for words, _, _ in found),
        median_words=median(words for words, _, _ in found),
        right_words=fmean(words for words, _ in right) if right else None,
        right_lines=fmean(lines for _, lines in right) if right else None,
    )


def _replies(path: Path | None, ids: frozenset[str]) -> Iterator[dict[str, Any]]:
    """Read in pieces: there may be millions."""
    if path is None or not path.is_file():
        return
    import pyarrow.parquet

    for batch in pyarrow.parquet.ParquetFile(path).iter_batches(columns=list(COLUMNS)):
        yield from (
            row
            for row in batch.to_pylist()
            if row["sample"] in ids and row["text"] is not None and row["finish_reason"] != "length"
        )


def _measured(row: dict[str, Any]) -> tuple[int, int, bool]:
    """Words, lines, and whether it is right."""
    lines = [line for line in row["text"].splitlines() if line.strip()]
    return len(row["text"].split()), len(lines), row["correct"]
