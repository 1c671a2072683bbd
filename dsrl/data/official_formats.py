"""Layouts of official releases that are no plain tables, read with the columns that the hub has for them."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dsrl.core.errors import UserError
from dsrl.data.rows import Rows, json_rows, json_value
from dsrl.data.visual_formats import dynamath, mathvision, mathvista

MARK = re.compile(r"^\s*\(?([A-Za-z])\s*[).:]\s*")
LOGIQA_LINES = 8
SCHEMA = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY rowid"
DATABASES = ("database", "dev_databases", "test_database", "databases")


def _logiqa(path: Path, text: str) -> Rows:
    """LogiQA's own text files: a blank line, the right letter, context, question, four options; over and over.

    Columns as on the hub: `context`, `query`, `options`, `correct_option` (from 0).
    """
    lines = text.rstrip().split("\n")
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
    texts = [_unmarked(option, mark) for option, mark in zip(options, "ABCD", strict=True)]
    return {"context": context, "query": query, "options": texts, "correct_option": "abcd".index(letter)}


def _unmarked(option: str, mark: str) -> str:
    """An option without its own letter before it."""
    found = MARK.match(option)
    return option[found.end() :] if found and found[1].upper() == mark else option


def _pubmedqa(path: Path, text: str) -> Rows:
    """PubMedQA's own `ori_pqal.json`: an object of records by id; columns as on the hub, contexts in `context`."""
    records = json_value(path, text)
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
    rows = json_rows(path, text)
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
    "dynamath": (".tsv", dynamath),
    "logiqa": (".txt", _logiqa),
    "mathvision": (".tsv", mathvision),
    "mathvista": (".json", mathvista),
    "pubmedqa": (".json", _pubmedqa),
    "spider": (".json", _spider),
}
"""`format` in a task's YAML -> the suffix of the files that are laid out so, and who reads them."""
