"""Rows out of the text of plain files: JSON, CSV and TSV."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from dsrl.core.errors import UserError

LONGEST_CELL = 1 << 28
"""Characters; a longer one is a quotation mark that never closes."""

Rows = list[dict[str, Any]]


def json_rows(path: Path, text: str) -> Rows:
    """A JSON array of objects. Raises `UserError` for anything else."""
    rows = json_value(path, text)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path} is not a JSON array of objects", allowed='[{"...": "..."}, ...]')
    return rows


def json_value(path: Path, text: str) -> Any:
    """Whatever the file holds. Raises `UserError` for what is no JSON."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{path} is not JSON", got=str(error)) from error


def table_rows(path: Path, text: str) -> Rows:
    """CSV or TSV with a first line of names. A cell may hold a picture in base64."""
    csv.field_size_limit(LONGEST_CELL)
    table = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if path.suffix == ".tsv" else ",")
    try:
        rows = list(table)
    except csv.Error as error:
        raise UserError(
            f"{path} can't be read after line {table.line_num}", got=str(error), next_step="give it as JSONL or Parquet"
        ) from error
    names = list(table.fieldnames or ())
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{path} names a column twice", got=", ".join(twice), next_step="rename one")
    for number, row in enumerate(rows, 1):
        if None in row:
            raise UserError(
                f"{path}, row {number} has more cells than the first line has names",
                got=f"{len(row) - 1 + len(row[None])} cells, {len(row) - 1} names",
                next_step='put cells that hold the separator between double quotes: "..."',
            )
    return rows
