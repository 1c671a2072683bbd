"""Graders built as from a task's YAML, and the tables of cases beside this file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from dsrl.graders import Grader
from dsrl.pipeline.config import build

OPTIONS: dict[str, dict[str, Any]] = {
    "number": {},
    "choice": {},
    "label": {"labels": ["yes", "no"]},
    "math": {},
    "mixed": {},
    "text": {},
    "span": {},
    "list": {"item": {"kind": "number"}},
    "set": {},
    "json": {"fields": {"name": {"kind": "text"}, "age": {"kind": "number"}}},
    "sql": {},
    "code": {},
    "regex": {"pattern": r"Verdict:\s*(\w+)", "form": "Verdict: {answer}", "example": "guilty"},
}
"""Kind -> its options."""

ANSWERS = {
    "number": "4",
    "choice": "B",
    "label": "yes",
    "math": r"\frac{1}{2}",
    "mixed": r"\frac{1}{3}",
    "text": "sea",
    "span": "the sea",
    "list": '["2", "3"]',
    "set": '["sea", "sky"]',
    "json": '{"name": "Ann", "age": "61"}',
    "sql": "SELECT 1",
    "code": "x = 1\n# tests\nassert x == 1",
    "regex": "guilty",
}
"""Kind -> a canonical answer."""


def kind(name: str, **options: Any) -> Grader:
    """An answer kind with its options, as in YAML."""
    made = build({"kind": name, **(options or OPTIONS[name])}, "task.answer")
    assert isinstance(made, Grader)
    return made


def cases() -> Iterator[tuple[Grader, str, str, str]]:
    """(answer kind, reply, right answer, verdict) of every table."""
    for path in sorted(Path(__file__).with_name("cases").glob("*.yaml")):
        for group in yaml.safe_load(path.read_text(encoding="utf-8")):
            grader = kind(group["kind"], **group.get("options", {})).for_question(group.get("question", ""))
            for reply, answer, verdict in group["cases"]:
                yield grader, reply, grader.gold(answer) or answer, verdict
