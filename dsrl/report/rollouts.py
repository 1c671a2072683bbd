"""A few replies of the base model to each shown sample, out of the side table of the stage `score`."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

MOST = 4
COLUMNS = ("sample", "text", "correct", "parsed", "finish_reason")


def examples(path: Path | None, ids: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """Sample id -> up to four rollouts, right and wrong ones in turn as far as there are both."""
    if path is None or not path.is_file():
        return {}
    import pyarrow.compute
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path, filters=pyarrow.compute.field("sample").isin(list(ids)))
    found: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        if row.get("text") is not None:
            found.setdefault(row["sample"], []).append(row)
    return {identifier: _mixed(rows) for identifier, rows in found.items()}


def _mixed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    right = [row for row in rows if row["correct"]]
    wrong = [row for row in rows if not row["correct"]]
    half = MOST // 2
    from_right = max(half, MOST - len(wrong))
    kept = right[:from_right]
    return kept + wrong[: MOST - len(kept)]
