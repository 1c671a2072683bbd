"""A few replies of the base model to each shown sample, out of the side table of the stage `score`."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

MOST = 4
COLUMNS = ("sample", "text", "correct", "parsed", "finish_reason")


def examples(path: Path | None, ids: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """Sample id -> up to four rollouts, half of them right as far as there are as many; read in pieces."""
    if path is None or not path.is_file():
        return {}
    import pyarrow.parquet

    found: dict[str, list[dict[str, Any]]] = {identifier: [] for identifier in ids}
    for batch in pyarrow.parquet.ParquetFile(path).iter_batches(columns=list(COLUMNS)):
        names = batch.column("sample").to_pylist()
        for place, name in enumerate(names):
            if name in found:
                row = {column: batch.column(column)[place].as_py() for column in COLUMNS}
                _keep(found[name], row)
    return {identifier: _mixed(rows) for identifier, rows in found.items() if rows}


def _keep(rows: list[dict[str, Any]], row: dict[str, Any]) -> None:
    """Four right and four wrong ones are all that can be shown."""
    if row["text"] is not None and sum(other["correct"] == row["correct"] for other in rows) < MOST:
        rows.append(row)


def _mixed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    right = [row for row in rows if row["correct"]]
    wrong = [row for row in rows if not row["correct"]]
    kept = right[: max(MOST // 2, MOST - len(wrong))]
    return kept + wrong[: MOST - len(kept)]
