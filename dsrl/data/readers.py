"""Read the rows of a data set: local tables, folders saved by `datasets`, the Hugging Face hub."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from dsrl.core.errors import UserError

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
MAX_CELL_LENGTH = 1 << 28
"""Characters. Cells may hold base64 images; a longer one means a quotation mark that never closes."""

Rows = list[dict[str, Any]]


def read_rows(path: Path) -> Rows:
    """Read a local table in any of `SUFFIXES`. Raises `UserError` that names file and line."""
    if not path.is_file():
        raise UserError(
            f"no such data file: {path}", next_step="check the path; relative paths start at the working folder"
        )
    if path.suffix not in SUFFIXES:
        raise UserError(f"can't read {path}", got=path.suffix or "no suffix", allowed=SUFFIXES)
    if path.suffix == ".parquet":
        return _parquet_rows(path)
    text = read_text(path)
    if path.suffix == ".jsonl":
        return [_jsonl_row(path, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    return json_rows(path, text) if path.suffix == ".json" else table_rows(path, text)


def read_text(path: Path) -> str:
    """Decode UTF-8, with or without a byte order mark. Raises `UserError` that names line and likely encoding."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        guess = "UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "WINDOWS-1252"
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} is not UTF-8",
            got=f"byte {content[error.start]:#04x} at {error.start}, in line {line}; it may be {guess}",
            next_step=f"save it as UTF-8: iconv -f {guess} -t UTF-8 {path.name}",
        ) from error


def json_value(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{path} is not JSON", got=str(error)) from error


def json_rows(path: Path, text: str) -> Rows:
    """Read a JSON array of objects."""
    rows = json_value(path, text)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path} is not a JSON array of objects", allowed='[{"...": "..."}, ...]')
    return rows


def table_rows(path: Path, text: str) -> Rows:
    """Read CSV or TSV with column names in the first line."""
    csv.field_size_limit(MAX_CELL_LENGTH)
    table = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if path.suffix == ".tsv" else ",")
    try:
        rows = list(table)
    except csv.Error as error:
        raise UserError(
            f"{path} can't be read after line {table.line_num}", got=str(error), next_step="save it as JSONL or Parquet"
        ) from error
    names = list(table.fieldnames or ())
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{path} has two columns of the same name", got=", ".join(repeated), next_step="rename one")
    for number, row in enumerate(rows, 1):
        if None in row:
            raise UserError(
                f"{path}, row {number} has more cells than the first line has names",
                got=f"{len(row) - 1 + len(row[None])} cells, {len(row) - 1} names",
                next_step='quote cells that contain the separator: "..."',
            )
    return rows


def read_saved_dataset(folder: Path, split: str) -> Rows:
    """Read a split of a `DatasetDict.save_to_disk` folder, or all of a `Dataset.save_to_disk` folder."""
    splits = sorted(path.parent.name for path in folder.glob("*/dataset_info.json"))
    if splits and split not in splits:
        raise UserError(f"{folder} has no split {split}", allowed=splits, next_step="set task.test.split=...")
    if not splits and not (folder / "dataset_info.json").is_file():
        raise UserError(
            f"{folder} is not a data set folder", allowed="a folder written by datasets' save_to_disk, or a file"
        )
    from datasets import load_from_disk

    return _rows_with_encoded_images(load_from_disk(str(folder / split if splits else folder)))


def read_hub_dataset(path: str, config: str | None, split: str, revision: str | None) -> Rows:
    """Read a split of a data set on the Hugging Face hub."""
    from datasets import load_dataset

    try:
        data = load_dataset(path, config, split=split, revision=revision)
    except Exception as error:  # the hub's errors have no common base class
        message = str(error).splitlines()
        raise UserError(
            f"can't load data set {path} from the Hugging Face hub",
            got=f"{type(error).__name__}: {message[0] if message else ''}",
            next_step="check id, split and network; for a gated set accept its terms and log in (hf auth login); or "
            'use a local file: task.test.path=FILE.jsonl; or run without a test set: task.test.path=""',
        ) from error
    return _rows_with_encoded_images(data)


def _rows_with_encoded_images(data: Any) -> Rows:
    """Keep images as file paths or bytes; by default `datasets` would decode them all with Pillow."""
    from datasets import Image

    for name, feature in data.features.items():
        element = getattr(feature, "feature", None)
        if isinstance(feature, Image):
            data = data.cast_column(name, Image(decode=False))
        elif isinstance(element, Image):
            data = data.cast_column(name, type(feature)(Image(decode=False)))
    return [dict(row) for row in data]


def _parquet_rows(path: Path) -> Rows:
    import pyarrow.parquet

    try:
        return list(pyarrow.parquet.ParquetFile(path).read().to_pylist())
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"{path} is not a Parquet file", got=str(error).partition(":")[0]) from error


def _jsonl_row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{path}, line {number} is not JSON", got=line[:80]) from error
    if not isinstance(row, dict):
        raise UserError(f"{path}, line {number} is not a JSON object", got=line[:80])
    return row
