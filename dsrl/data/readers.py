"""The rows of a data set, as they are: local tables, the layouts of some official releases, saved folders, the hub."""

import json
from pathlib import Path
from typing import Any

from dsrl.core.errors import UserError
from dsrl.data.official_formats import LAYOUTS
from dsrl.data.rows import Rows, json_rows, table_rows

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


def read_rows(path: Path, layout: str | None = None) -> Rows:
    """The rows of a local file. Raises `UserError` naming file and line."""
    if not path.is_file():
        raise UserError(
            f"no such data file: {path}", next_step="check the path; a relative one starts at the working folder"
        )
    if layout is not None and path.suffix == LAYOUTS[layout][0]:
        return LAYOUTS[layout][1](path, _text(path))
    if path.suffix not in SUFFIXES:
        raise UserError(f"can't read {path}", got=path.suffix or "no suffix", allowed=SUFFIXES)
    if path.suffix == ".parquet":
        return _parquet_rows(path)
    text = _text(path)
    if path.suffix == ".jsonl":
        return [_json_row(path, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    return json_rows(path, text) if path.suffix == ".json" else table_rows(path, text)


def saved_rows(folder: Path, split: str) -> Rows:
    """A split of a `DatasetDict.save_to_disk` folder, or all of a `Dataset.save_to_disk` folder."""
    splits = sorted(path.parent.name for path in folder.glob("*/dataset_info.json"))
    if splits and split not in splits:
        raise UserError(f"{folder} has no split {split}", allowed=splits, next_step="give task.test.split=...")
    if not splits and not (folder / "dataset_info.json").is_file():
        raise UserError(
            f"{folder} is not a data set folder", allowed="a folder written by datasets' save_to_disk, or a file"
        )
    from datasets import load_from_disk

    return _undecoded(load_from_disk(str(folder / split if splits else folder)))


def hub_rows(path: str, config: str | None, split: str, revision: str | None) -> Rows:
    """A split of a data set on the Hugging Face hub."""
    from datasets import load_dataset

    try:
        data = load_dataset(path, config, split=split, revision=revision)
    except Exception as error:  # the hub's errors have no common base
        said = str(error).splitlines()
        raise UserError(
            f"data set {path} can't be had from the Hugging Face hub",
            got=f"{type(error).__name__}: {said[0] if said else ''}",
            next_step="check id, split and network; for a gated set accept its terms and log in (hf auth login); or "
            'give a local file: task.test.path=FILE.jsonl; or measure nothing: task.test.path=""',
        ) from error
    return _undecoded(data)


def _undecoded(data: Any) -> Rows:
    """Rows with pictures as files or bytes, not as Pillow would open them all."""
    from datasets import Image

    for name, feature in data.features.items():
        many = getattr(feature, "feature", None)
        if isinstance(feature, Image):
            data = data.cast_column(name, Image(decode=False))
        elif isinstance(many, Image):
            data = data.cast_column(name, type(feature)(Image(decode=False)))
    return [dict(row) for row in data]


def _text(path: Path) -> str:
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


def _parquet_rows(path: Path) -> Rows:
    import pyarrow.parquet

    try:
        return list(pyarrow.parquet.ParquetFile(path).read().to_pylist())
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"{path} is not a Parquet file", got=str(error).partition(":")[0]) from error


def _json_row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{path}, line {number} is not JSON", got=line[:80]) from error
    if not isinstance(row, dict):
        raise UserError(f"{path}, line {number} is not a JSON object", got=line[:80])
    return row
