"""The rows of a data set, as they are: local tables, the layouts of some official releases, saved folders, the hub."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dsrl.errors import UserError

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
MARKS = re.compile(r"^\s*\(?([A-Za-z])\s*[).:]\s*")
LOGIQA_LINES = 8
SCHEMA = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY rowid"
DATABASES = ("database", "dev_databases", "test_database", "databases")

Rows = list[dict[str, Any]]


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
    return _json_rows(path, text) if path.suffix == ".json" else _table_rows(path, text)


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

    return [dict(row) for row in load_from_disk(str(folder / split if splits else folder))]


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


def _table_rows(path: Path, text: str) -> Rows:
    """CSV or TSV with a first line of names."""
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


def _json_rows(path: Path, text: str) -> Rows:
    rows = _json(path, text)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path} is not a JSON array of objects", allowed='[{"...": "..."}, ...]')
    return rows


def _json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{path} is not JSON", got=str(error)) from error


def _json_row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{path}, line {number} is not JSON", got=line[:80]) from error
    if not isinstance(row, dict):
        raise UserError(f"{path}, line {number} is not a JSON object", got=line[:80])
    return row


def _logiqa(path: Path, text: str) -> Rows:
    """LogiQA's own text files: a blank line, the right letter, context, question, four options; over and over.

    Columns as on the hub: `context`, `query`, `options`, `correct_option` (from 0).
    """
    lines = text.rstrip("\n").split("\n")
    if len(lines) % LOGIQA_LINES:
        raise UserError(
            f"{path} is not in LogiQA's layout",
            got=f"{len(lines)} lines, which is no multiple of {LOGIQA_LINES}",
            allowed="blank, right option (a-d), context, question, four options",
        )
    return [_logiqa_row(path, start, lines) for start in range(0, len(lines), LOGIQA_LINES)]


def _logiqa_row(path: Path, start: int, lines: list[str]) -> dict[str, Any]:
    blank, letter, context, query, *options = (line.strip() for line in lines[start : start + LOGIQA_LINES])
    if blank or letter not in tuple("abcd") or not all(options):
        raise UserError(
            f"{path}, line {start + 1}: no LogiQA record",
            got=f"{blank[:40]!r}, then {letter[:40]!r}",
            allowed="a blank line, then a, b, c or d",
        )
    texts = [MARKS.sub("", option) for option in options]
    return {"context": context, "query": query, "options": texts, "correct_option": "abcd".index(letter)}


def _pubmedqa(path: Path, text: str) -> Rows:
    """PubMedQA's own `ori_pqal.json`: an object of records by id; columns as on the hub, contexts in `context`."""
    records = _json(path, text)
    whole = ("QUESTION", "CONTEXTS", "final_decision")
    if not isinstance(records, dict) or not all(isinstance(record, dict) for record in records.values()):
        raise UserError(f"{path} is not in PubMedQA's layout", allowed='{"PUBMED ID": {"QUESTION": ...}, ...}')
    for name, record in records.items():
        if missing := [key for key in whole if key not in record]:
            raise UserError(f"{path}: record {name} has no {', '.join(missing)}", got=", ".join(record))
    return [
        {
            "pubid": name,
            "question": record["QUESTION"],
            "context": {"contexts": record["CONTEXTS"], "labels": record.get("LABELS", [])},
            "long_answer": record.get("LONG_ANSWER"),
            "final_decision": record["final_decision"],
        }
        for name, record in records.items()
    ]


def _spider(path: Path, text: str) -> Rows:
    """Spider's or BIRD's `dev.json`. Columns `question`, `query`, `db_id`, `evidence`, and `schema`, read out of the
    SQLite files in the folder beside it."""
    rows = _json_rows(path, text)
    schemas: dict[str, str] = {}
    found = []
    for number, row in enumerate(rows, 1):
        name, query = row.get("db_id"), row.get("query", row.get("SQL"))
        if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name) or query is None or "question" not in row:
            raise UserError(
                f"{path}: record {number} is not in Spider's layout",
                got=f"columns {', '.join(sorted(row))}",
                allowed="question, db_id, and query (Spider) or SQL (BIRD)",
            )
        if name not in schemas:
            schemas[name] = _schema(path.parent, name)
        found.append({**row, "query": query, "evidence": row.get("evidence", ""), "schema": schemas[name]})
    return found


def _schema(folder: Path, name: str) -> str:
    import sqlite3
    from contextlib import closing

    files = [path for path in _database_files(folder, name) if path.is_file()]
    if not files:
        raise UserError(
            f"no database {name} beside the questions",
            got=str(folder),
            allowed=[f"{place}/{name}/{name}.sqlite" for place in DATABASES],
        )
    try:
        with closing(sqlite3.connect(f"{files[0].as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            return "\n".join(f"{sql};" for (sql,) in connection.execute(SCHEMA))
    except sqlite3.Error as error:
        raise UserError(f"{files[0]} is no SQLite database", got=str(error)) from error


def _database_files(folder: Path, name: str) -> Iterator[Path]:
    for place in DATABASES:
        yield folder.absolute() / place / name / f"{name}.sqlite"
        yield folder.absolute() / place / f"{name}.sqlite"


LAYOUTS: dict[str, tuple[str, Callable[[Path, str], Rows]]] = {
    "logiqa": (".txt", _logiqa),
    "pubmedqa": (".json", _pubmedqa),
    "spider": (".json", _spider),
}
"""`format` in a task's YAML -> the suffix of the files that are laid out so, and who reads them."""
