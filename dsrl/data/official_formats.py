"""Files of official releases that are not plain tables, read with the column names of their versions on the hub."""

import ast
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from dsrl.core.errors import UserError
from dsrl.data.readers import Rows, json_rows, json_value, read_rows, read_text, table_rows

OPTION_LABEL = re.compile(r"^\s*\(?([A-Za-z])\s*[).:]\s*")
LOGIQA_LINES = 8
SCHEMA_QUERY = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY rowid"
DATABASE_FOLDERS = ("database", "dev_databases", "test_database", "databases")
MAX_INDEX_LENGTH = 64
"""Characters. A longer image cell of a VLMEvalKit table holds the image itself, a shorter one the index of a row."""
INLINE_CHOICES = re.compile(r"^choices:", re.IGNORECASE | re.MULTILINE)
MATHVISTA_HINTS = {
    "integer": "The answer is a whole number.",
    "float": "The answer is a number with {precision} decimal places.",
    "list": "The answer is a list in square brackets.",
}


def read_official(path: Path, format_name: str) -> Rows:
    """Read a file in one of `FORMATS`. A file with another suffix than the format's is read as a plain table."""
    suffix, parse = FORMATS[format_name]
    return parse(path, read_text(path)) if path.is_file() and path.suffix == suffix else read_rows(path)


def _logiqa(path: Path, text: str) -> Rows:
    """LogiQA's text files repeat: a blank line, the right letter, context, question, four options.

    Columns as on the hub: `context`, `query`, `options`, `correct_option` (from 0).
    """
    lines = text.rstrip().split("\n")
    if len(lines) % LOGIQA_LINES:
        raise UserError(
            f"{path} is not in LogiQA's format",
            got=f"{len(lines)} lines, not a multiple of {LOGIQA_LINES}",
            allowed="blank, right option (a-d), context, question, four options",
        )
    return [_logiqa_row(path, start, lines) for start in range(0, len(lines), LOGIQA_LINES)]


def _logiqa_row(path: Path, start: int, lines: list[str]) -> dict[str, Any]:
    blank, letter, context, query, *options = (line.strip() for line in lines[start : start + LOGIQA_LINES])
    if blank or letter not in tuple("abcd") or not all(options):
        raise UserError(
            f"{path}, line {start + 1}: not a LogiQA record",
            got=f"{blank[:40]!r}, then {letter[:40]!r}",
            allowed="a blank line, then a, b, c or d",
        )
    texts = []
    for option, label in zip(options, "ABCD", strict=True):
        match = OPTION_LABEL.match(option)
        texts.append(option[match.end() :] if match and match[1].upper() == label else option)
    return {"context": context, "query": query, "options": texts, "correct_option": "abcd".index(letter)}


def _pubmedqa(path: Path, text: str) -> Rows:
    """PubMedQA's `ori_pqal.json`. Columns as on the hub, contexts in `context`."""
    required = ("QUESTION", "CONTEXTS", "final_decision")
    records = _records_by_id(path, text, "PubMedQA", '{"PUBMED ID": {"QUESTION": ...}, ...}', required)
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


def _records_by_id(
    path: Path, text: str, benchmark: str, example: str, required: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Read an object of records by id, each with the required keys."""
    records = json_value(path, text)
    if not isinstance(records, dict) or not all(isinstance(record, dict) for record in records.values()):
        raise UserError(f"{path} is not in {benchmark}'s format", allowed=example)
    for name, record in records.items():
        if missing := [key for key in required if key not in record]:
            raise UserError(f"{path}: record {name} has no {', '.join(missing)}", got=", ".join(record))
    return records


def _spider(path: Path, text: str) -> Rows:
    """Spider's or BIRD's `dev.json`. Columns `question`, `query`, `db_id`, `evidence`, and `schema`, which is read from
    the SQLite files in the folder beside it."""
    schemas: dict[str, str] = {}
    rows = []
    for number, row in enumerate(json_rows(path, text), 1):
        name, query = row.get("db_id"), row.get("query", row.get("SQL"))
        if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name) or query is None or "question" not in row:
            raise UserError(
                f"{path}: record {number} is not in Spider's format",
                got=f"columns {', '.join(sorted(row))}",
                allowed="question, db_id, and query (Spider) or SQL (BIRD)",
            )
        if name not in schemas:
            schemas[name] = _database_schema(path.parent, name)
        rows.append({**row, "query": query, "evidence": row.get("evidence", ""), "schema": schemas[name]})
    return rows


def _database_schema(folder: Path, name: str) -> str:
    places = [folder.absolute() / parent for parent in DATABASE_FOLDERS]
    files = [file for place in places for file in (place / name / f"{name}.sqlite", place / f"{name}.sqlite")]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise UserError(
            f"no database {name} beside the questions",
            got=str(folder),
            allowed=[f"{parent}/{name}/{name}.sqlite" for parent in DATABASE_FOLDERS],
        )
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            return "\n".join(f"{sql};" for (sql,) in connection.execute(SCHEMA_QUERY))
    except sqlite3.Error as error:
        raise UserError(f"{file} is not a SQLite database", got=str(error)) from error


def _mathvision(path: Path, text: str) -> Rows:
    """VLMEvalKit's TSV of MathVision: images in base64, options as a Python list in a text cell."""
    rows = _vlmevalkit_rows(path, text, ("index", "image", "question", "choices", "answer", "category"))
    return [
        {
            "id": row["index"],
            "question": row["question"],
            "options": [] if INLINE_CHOICES.search(row["question"]) else _parse_list(path, number, row["choices"]),
            "decoded_image": row["image"],
            "answer": row["answer"],
            "level": row.get("level"),
            "subject": row["category"],
        }
        for number, row in enumerate(rows, 1)
    ]


def _dynamath(path: Path, text: str) -> Rows:
    """VLMEvalKit's TSV of DynaMath: all ten variants in one table, `qid` the question and `varid` the variant."""
    rows = _vlmevalkit_rows(path, text, ("image", "question", "answer", "answer_type", "subject", "qid", "varid"))
    return [
        {
            "id": row["qid"],
            "variant": row["varid"],
            "question": row["question"],
            "decoded_image": row["image"],
            "ground_truth": row["answer"],
            "answer_type": row["answer_type"],
            "subject": row["subject"],
            "knowledge_level": row.get("knowledge_level"),
        }
        for row in rows
    ]


def _mathvista(path: Path, text: str) -> Rows:
    """MathVista's `testmini.json`. The file has no `query`, so it is composed here; an image is a path."""
    required = ("question", "image", "choices", "answer", "question_type", "answer_type", "metadata")
    records = _records_by_id(path, text, "MathVista", '{"1": {"question": ..., "image": ...}, ...}', required)
    return [
        {**record, "pid": name, "decoded_image": record["image"], "query": record.get("query") or _query(record)}
        for name, record in records.items()
    ]


def _query(record: Mapping[str, Any]) -> str:
    """Compose the question with its unit, its options, or a hint at the form of the answer."""
    unit = f" (Unit: {record['unit']})" if record.get("unit") else ""
    lines = [f"Question: {record['question']}{unit}"]
    if choices := record.get("choices"):
        lines += [
            "Choices:",
            *(f"({letter}) {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False)),
        ]
    elif hint := MATHVISTA_HINTS.get(record["answer_type"]):
        lines.insert(0, hint.format(precision=int(record.get("precision") or 1)))
    return "\n".join(lines)


def _vlmevalkit_rows(path: Path, text: str, required: tuple[str, ...]) -> Rows:
    """Rows of a VLMEvalKit table, with images that are shared by index filled in."""
    rows = table_rows(path, text)
    if rows and (missing := [name for name in required if name not in rows[0]]):
        raise UserError(
            f"{path} is not in VLMEvalKit's format", got=f"no column {', '.join(missing)}", allowed=required
        )
    images = {row["index"]: row["image"] for row in rows if "index" in row}
    return [
        {
            **row,
            "image": images.get(row["image"], row["image"]) if len(row["image"]) <= MAX_INDEX_LENGTH else row["image"],
        }
        for row in rows
    ]


def _parse_list(path: Path, number: int, text: str) -> list[str]:
    """Parse a list literal of Python or JSON without evaluating code."""
    try:
        value = ast.literal_eval(text or "[]")
    except (ValueError, SyntaxError) as error:
        raise UserError(f"{path}, row {number}: choices are not a list", got=text[:80]) from error
    return [str(element) for element in value] if isinstance(value, (list, tuple)) else []


FORMATS: dict[str, tuple[str, Callable[[Path, str], Rows]]] = {
    "dynamath": (".tsv", _dynamath),
    "logiqa": (".txt", _logiqa),
    "mathvision": (".tsv", _mathvision),
    "mathvista": (".json", _mathvista),
    "pubmedqa": (".json", _pubmedqa),
    "spider": (".json", _spider),
}
"""`format` of a source -> suffix of its files, and their parser."""
