"""Rows as veRL's data set reads them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dsrl.stages.train.job import Row
from dsrl.stages.train.verl.config import SOURCE

TEXT = pa.string()
SCHEMA = pa.schema(
    {
        "data_source": TEXT,
        "prompt": pa.list_(pa.struct({"role": TEXT, "content": TEXT})),
        "ability": TEXT,
        "reward_model": pa.struct({"style": TEXT, "ground_truth": TEXT}),
        "extra_info": pa.struct(
            {
                "index": pa.int64(),
                **dict.fromkeys(("split", "id", "prompt", "origin", "parent", "passage"), TEXT),
                "pass_rate": pa.float64(),
            }
        ),
    }
)
IMAGES = pa.field("images", pa.list_(pa.struct({"bytes": pa.binary()})))
"""veRL puts the first in the place of the prompt's first `<image>`, and so on; a row without any keeps its text."""
AT_ONCE = 100
"""Rows in memory, with their pictures."""


def write_table(path: Path, rows: Iterable[Row], split: str, folder: Path | None = None) -> None:
    """One row a question, each with what tells where it came from. `folder`: of the pictures; without one there is no
    column for them."""
    schema = SCHEMA.append(IMAGES) if folder else SCHEMA
    with pq.ParquetWriter(path, schema) as writer:
        batch: list[dict[str, Any]] = []
        for number, row in enumerate(rows):
            batch.append({**as_verl(row, number, split), **(pictures(row, folder) if folder else {})})
            if len(batch) == AT_ONCE:
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                batch = []
        writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def as_verl(row: Row, number: int, split: str) -> dict[str, Any]:
    """Everything but the pictures; all rows have the same keys, as Parquet wants."""
    return {
        "data_source": SOURCE,
        "prompt": [{"role": "user", "content": row.prompt}],
        "ability": SOURCE,
        "reward_model": {"style": "rule", "ground_truth": row.answer},
        "extra_info": {
            "index": number,
            "split": split,
            "id": row.id,
            "prompt": row.prompt,
            "origin": row.origin or "",
            "parent": row.parent or "",
            "passage": row.passage or "",
            "pass_rate": row.pass_rate,
        },
    }


def pictures(row: Row, folder: Path) -> dict[str, Any]:
    """Their files, as they are in the store: of the same pixels as in the stages before."""
    return {"images": [{"bytes": (folder / path).read_bytes()} for path in row.images]}
