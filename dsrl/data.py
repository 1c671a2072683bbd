"""Labelled data sets that the user names: a local file, a folder saved by `datasets`, or a hub id."""

import csv
import io
import json
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from dsrl.digest import digest, file_digest, folder_digest
from dsrl.errors import UserError
from dsrl.home import resource
from dsrl.part import Part, part, record

if TYPE_CHECKING:
    from dsrl.grade import Grader

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


@record
class Item:
    """One question with its gold answer."""

    input: str
    answer: str


@part
class Source(Part):
    """A labelled data set and which of its columns are question and answer."""

    path: str = ""
    """A JSONL, JSON, CSV, TSV or Parquet file, a `DatasetDict.save_to_disk` folder, or a Hugging Face data set id;
    empty: there is none."""
    config: str | None = None
    """Name of the hub data set's configuration."""
    revision: str | None = None
    """Commit of the hub data set."""
    split: str = "test"
    input: str = "Input"
    """Column of the question."""
    output: str = "Output"
    """Column of the gold answer or solution."""
    template: str | None = None
    """Builds the question from several columns: `{context} {question}`; takes the place of `input`."""
    limit: int | None = Field(default=None, gt=0)
    """Only the first so many rows."""

    @field_validator("template")
    @classmethod
    def _check_template(cls, value: str | None) -> str | None:
        columns(value or "")
        return value

    @property
    def local(self) -> Path | None:
        """The file or folder, if `path` names one."""
        found = resource(self.path)
        looks_local = self.path.startswith(("/", "./", "../", "~")) or found.suffix in SUFFIXES
        return found if found.exists() or looks_local else None

    def fingerprint(self) -> str:
        """Content for local data, id and revision for the hub, and how the columns are read."""
        local = self.local
        if local is not None and local.exists():
            content = file_digest(local) if local.is_file() else folder_digest(local, ("*/*", "*"))
        else:
            content = f"{self.path}@{self.revision}"
        return digest([content, self.config, self.split, self.input, self.output, self.template, self.limit])

    def count(self) -> int | None:
        """Rows, where that can be said without the network."""
        local = self.local
        return None if local is None or not local.exists() else len(self.rows())

    def rows(self) -> list[dict[str, Any]]:
        """All rows as they are. Raises `UserError` where the data can't be had or lack a column."""
        local = self.local
        rows = self._hub() if local is None else _saved(local, self) if local.is_dir() else read_rows(local)
        if not rows:
            raise UserError(f"data set {self.path} is empty", got=f"0 rows in split {self.split}")
        rows = rows[: self.limit]
        self._check_columns(rows)
        return rows

    def load(self, grader: "Grader") -> list[Item]:
        """Questions with canonical gold answers. Raises `UserError` naming the rows whose gold can't be read."""
        rows = self.rows()
        answers = [grader.given(self.question(row)).gold(str(row[self.output])) for row in rows]
        unread = [number for number, answer in enumerate(answers, 1) if answer is None]
        if unread:
            raise UserError(
                f"{self.path}: {len(unread)} of {len(rows)} gold answers can't be read by this task's answer kind",
                got=f"rows {unread[:5]}, such as {str(rows[unread[0] - 1][self.output])[-80:]!r}",
                next_step="check answer.kind and its options, or mend the rows",
            )
        return [
            Item(input=self.question(row), answer=answer) for row, answer in zip(rows, answers, strict=True) if answer
        ]

    def question(self, row: dict[str, Any]) -> str:
        """The question of a row."""
        return self.template.format(**row) if self.template else str(row[self.input])

    def _check_columns(self, rows: list[dict[str, Any]]) -> None:
        wanted = {self.output, *(columns(self.template) if self.template else (self.input,))}
        for number, row in enumerate(rows, 1):
            if missing := sorted(wanted - row.keys()):
                raise UserError(
                    f"{self.path} has no column {', '.join(missing)}" + (f" in row {number}" if number > 1 else ""),
                    got=f"columns {', '.join(sorted(map(str, row)))}",
                    next_step="name the right ones: task.test.input=... task.test.output=...",
                )

    def _hub(self) -> list[dict[str, Any]]:
        from datasets import load_dataset

        try:
            data = load_dataset(self.path, self.config, split=self.split, revision=self.revision)
        except Exception as error:  # the hub's errors have no common base
            raise UserError(
                f"data set {self.path} can't be had from the Hugging Face hub",
                got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
                next_step="check id, split and network, or give a local file: task.test.path=FILE.jsonl",
            ) from error
        return [dict(row) for row in data]


def columns(template: str) -> set[str]:
    """The columns that a template names. Raises ValueError for one with unbalanced braces."""
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a local file. Raises `UserError` naming file and line."""
    if not path.is_file():
        raise UserError(f"no such data file: {path}", next_step="check the path")
    if path.suffix not in SUFFIXES:
        raise UserError(f"can't read {path}", got=path.suffix or "no suffix", allowed=SUFFIXES)
    if path.suffix == ".parquet":
        return _parquet_rows(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8", got=f"byte {error.start}", next_step="save it as UTF-8") from error
    if path.suffix == ".jsonl":
        return [_json_row(path, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if path.suffix == ".json":
        return _json_rows(path, text)
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if path.suffix == ".tsv" else ","))


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet

    try:
        return list(pyarrow.parquet.ParquetFile(path).read().to_pylist())
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"{path} is not a Parquet file", got=str(error).partition(":")[0]) from error


def _json_rows(path: Path, text: str) -> list[dict[str, Any]]:
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path} is not JSON", got=str(error)) from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path} is not a JSON array of objects", allowed='[{"...": "..."}, ...]')
    return rows


def _json_row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{path}, line {number} is not JSON", got=line[:80]) from error
    if not isinstance(row, dict):
        raise UserError(f"{path}, line {number} is not a JSON object", got=line[:80])
    return row


def _saved(folder: Path, source: Source) -> list[dict[str, Any]]:
    """A `DatasetDict.save_to_disk` (or `Dataset.save_to_disk`) folder."""
    splits = sorted(path.parent.name for path in folder.glob("*/dataset_info.json"))
    if splits and source.split not in splits:
        raise UserError(f"{folder} has no split {source.split}", allowed=splits, next_step="give task.test.split=...")
    if not splits and not (folder / "dataset_info.json").is_file():
        raise UserError(
            f"{folder} is not a data set folder", allowed="a folder written by datasets' save_to_disk, or a file"
        )
    from datasets import load_from_disk

    return [dict(row) for row in load_from_disk(str(folder / source.split if splits else folder))]
