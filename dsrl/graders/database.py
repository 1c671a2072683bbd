"""In a grading process: two queries on one read-only SQLite database."""

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from dsrl.graders.base import RIGHT, UNDECIDED, WRONG

LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 1_000_000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 1_000_000,
    sqlite3.SQLITE_LIMIT_COLUMN: 500,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 100,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 200,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
}
ASKING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
BUILDING = ASKING | {
    sqlite3.SQLITE_CREATE_TABLE,
    sqlite3.SQLITE_CREATE_INDEX,
    sqlite3.SQLITE_CREATE_VIEW,
    sqlite3.SQLITE_INSERT,
    sqlite3.SQLITE_UPDATE,
    sqlite3.SQLITE_REINDEX,
    sqlite3.SQLITE_TRANSACTION,
}
FORBIDDEN = {"load_extension", "random", "randomblob", "writefile", "readfile", "edit"}
"""Functions that reach out of the database, or make an answer a matter of luck."""
QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/", re.DOTALL)
ORDER = re.compile(r"\border\s+by\b", re.IGNORECASE)
STEPS = 10_000

Rows = list[tuple[Any, ...]]


def answer(question: dict[str, Any]) -> str:
    """`right`, `wrong` or `undecided`; the first query is the right one."""
    gold, reply = question["queries"]
    limits = question["limits"]
    until = time.process_time() + limits["seconds"]
    try:
        with _opened(question["file"], question["script"], until) as connection:
            right = _rows(connection, gold, limits["max_rows"])
            given = right if reply == gold else _rows(connection, reply, limits["max_rows"])
    except sqlite3.OperationalError as error:
        return UNDECIDED if "interrupted" in str(error) else WRONG
    except (sqlite3.Error, sqlite3.Warning, MemoryError, OverflowError):
        return WRONG
    return RIGHT if _alike(right, given, ordered(gold), limits["tolerance"]) else WRONG


@contextmanager
def _opened(file: str | None, script: str, until: float) -> Iterator[sqlite3.Connection]:
    """A connection that may only read, and is interrupted at `until` (CPU seconds of this process)."""
    place = f"{Path(file).as_uri()}?mode=ro&immutable=1" if file else "file::memory:"
    with closing(sqlite3.connect(place, uri=True, isolation_level=None)) as connection:
        for limit, value in LIMITS.items():
            connection.setlimit(limit, value)
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        connection.set_progress_handler(lambda: time.process_time() > until, STEPS)
        connection.set_authorizer(_only(BUILDING))
        connection.executescript("" if file else script)
        connection.set_authorizer(_only(ASKING))
        yield connection


def _only(actions: set[int]) -> Any:
    def allow(action: int, _table: str | None, name: str | None, *_place: str | None) -> int:
        forbidden = action == sqlite3.SQLITE_FUNCTION and (name or "").lower() in FORBIDDEN
        return sqlite3.SQLITE_OK if action in actions and not forbidden else sqlite3.SQLITE_DENY

    return allow


def _rows(connection: sqlite3.Connection, query: str, most: int) -> Rows:
    rows: Rows = connection.execute(query).fetchmany(most + 1)
    if len(rows) > most:
        raise sqlite3.DataError(f"more than {most} rows")
    return rows


def ordered(query: str) -> bool:
    """Whether the outermost SELECT has an ORDER BY: one in a subquery, window, string or comment doesn't count."""
    depth, top = 0, []
    for character in QUOTED.sub(" ", query):
        depth += (character == "(") - (character == ")")
        top.append(character if depth == 0 else " ")
    return ORDER.search("".join(top)) is not None


def _alike(first: Rows, second: Rows, in_order: bool, tolerance: float) -> bool:
    if len(first) != len(second):
        return False
    if not in_order:
        first, second = sorted(first, key=_place), sorted(second, key=_place)
    return all(
        len(left) == len(right) and all(_equal(one, other, tolerance) for one, other in zip(left, right, strict=True))
        for left, right in zip(first, second, strict=True)
    )


def _place(row: tuple[Any, ...]) -> list[tuple[str, Any]]:
    """Sorts rows of mixed types; decimals to six digits, so that rounding doesn't change their order."""
    return [
        ("", 0) if cell is None else ("0", float(f"{cell:.6g}")) if isinstance(cell, (int, float)) else _typed(cell)
        for cell in row
    ]


def _typed(cell: Any) -> tuple[str, Any]:
    return (type(cell).__name__, cell)


def _equal(one: Any, other: Any, tolerance: float) -> bool:
    if isinstance(one, float) or isinstance(other, float):
        numbers = isinstance(one, (int, float)) and isinstance(other, (int, float))
        return numbers and abs(one - other) <= tolerance * max(abs(one), abs(other))
    return type(one) is type(other) and bool(one == other)
