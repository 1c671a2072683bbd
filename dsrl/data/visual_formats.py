"""Layouts of files of visual benchmarks, read with the columns that the hub has for them."""

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dsrl.core.errors import UserError
from dsrl.data.rows import Rows, json_value, table_rows

LONGEST_INDEX = 64
"""Characters of a row's index; a longer cell is a picture."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CHOICES = re.compile(r"^choices:", re.IGNORECASE | re.MULTILINE)
"""Of a question that has its options in it already."""
KINDS = {
    "integer": "The answer is a whole number.",
    "float": "The answer is a number with {precision} decimal places.",
    "list": "The answer is a list in square brackets.",
}
"""What MathVista's `answer_type` asks for, in our words."""


def mathvision(path: Path, text: str) -> Rows:
    """VLMEvalKit's TSV of MathVision: pictures in base64, options as a list in a text."""
    rows = _table(path, text, ("index", "image", "question", "choices", "answer", "category"))
    return [
        {
            "id": row["index"],
            "question": row["question"],
            "options": [] if CHOICES.search(row["question"]) else _list(path, number, row["choices"]),
            "decoded_image": row["image"],
            "answer": row["answer"],
            "level": row.get("level"),
            "subject": row["category"],
        }
        for number, row in enumerate(rows, 1)
    ]


def dynamath(path: Path, text: str) -> Rows:
    """VLMEvalKit's TSV of DynaMath: all ten variants in one table, `qid` the question and `varid` the variant."""
    rows = _table(path, text, ("image", "question", "answer", "answer_type", "subject", "qid", "varid"))
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


def mathvista(path: Path, text: str) -> Rows:
    """MathVista's own `testmini.json`: an object of records by id. Its `query` is put together here, as the file has
    none; a picture is the path of one."""
    records = json_value(path, text)
    wanted = ("question", "image", "choices", "answer", "question_type", "answer_type", "metadata")
    if not isinstance(records, dict) or not all(isinstance(record, dict) for record in records.values()):
        raise UserError(f"{path} is not in MathVista's layout", allowed='{"1": {"question": ..., "image": ...}, ...}')
    for name, record in records.items():
        if missing := [key for key in wanted if key not in record]:
            raise UserError(f"{path}: record {name} has no {', '.join(missing)}", got=", ".join(record))
    return [
        {**record, "pid": name, "decoded_image": record["image"], "query": record.get("query") or _query(record)}
        for name, record in records.items()
    ]


def _query(record: Mapping[str, Any]) -> str:
    """The question with its unit, its options, and what form the answer has."""
    unit = f" (Unit: {record['unit']})" if record.get("unit") else ""
    lines = [f"Question: {record['question']}{unit}"]
    if choices := record.get("choices"):
        lines += ["Choices:", *(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False))]
    elif said := KINDS.get(record["answer_type"]):
        lines.insert(0, said.format(precision=int(record.get("precision") or 1)))
    return "\n".join(lines)


def _table(path: Path, text: str, wanted: tuple[str, ...]) -> Rows:
    rows = table_rows(path, text)
    if rows and (missing := [name for name in wanted if name not in rows[0]]):
        raise UserError(f"{path} is not in VLMEvalKit's layout", got=f"no column {', '.join(missing)}", allowed=wanted)
    drawn = {row["index"]: row["image"] for row in rows if "index" in row}
    return [{**row, "image": _own(row["image"], drawn)} for row in rows]


def _own(image: str, drawn: Mapping[str, str]) -> str:
    """A picture; a cell may name the row that has it, where several share one."""
    return drawn.get(image, image) if len(image) <= LONGEST_INDEX else image


def _list(path: Path, number: int, text: str) -> list[str]:
    """A list as Python or JSON writes it; nothing in it is run."""
    try:
        found = ast.literal_eval(text or "[]")
    except (ValueError, SyntaxError) as error:
        raise UserError(f"{path}, row {number}: its choices are no list", got=text[:80]) from error
    return [str(one) for one in found] if isinstance(found, (list, tuple)) else []
