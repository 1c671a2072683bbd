"""A few replies of the base model to each shown sample, out of the side tables of the stages that counted them."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

MOST = 4
TABLES = ("score/rollouts.parquet", "rewrite/rollouts.parquet")
"""Seeds and samples; variants, which are counted where they are written."""
COLUMNS = ("sample", "text", "correct", "parsed", "finish_reason")


def examples(tables: Iterable[Path], ids: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """Sample id -> up to four rollouts, half of them right as far as there are as many; read in pieces."""
    import pyarrow.parquet

    found: dict[str, list[dict[str, Any]]] = {identifier: [] for identifier in ids}
    there = (pyarrow.parquet.ParquetFile(path) for path in tables if path.is_file())
    for batch in (batch for table in there for batch in table.iter_batches(columns=list(COLUMNS))):
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
