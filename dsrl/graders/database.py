"""In a grading process: run two queries on one read-only SQLite database and compare their results."""

import math
import re
import sqlite3
import time
from bisect import bisect_left, bisect_right
from collections import Counter, deque
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
READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
BUILDING = READING | {
    sqlite3.SQLITE_CREATE_TABLE,
    sqlite3.SQLITE_CREATE_INDEX,
    sqlite3.SQLITE_CREATE_VIEW,
    sqlite3.SQLITE_INSERT,
    sqlite3.SQLITE_UPDATE,
    sqlite3.SQLITE_REINDEX,
    sqlite3.SQLITE_TRANSACTION,
}
FORBIDDEN = {"load_extension", "random", "randomblob", "writefile", "readfile", "edit"}
"""Functions that reach out of the database, or whose result differs from run to run."""
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
        with _open(question["file"], question["script"], until) as connection:
            right = _fetch(connection, gold, limits["max_rows"])
            given = right if reply == gold else _fetch(connection, reply, limits["max_rows"])
    except sqlite3.OperationalError as error:
        return UNDECIDED if "interrupted" in str(error) else WRONG
    except (sqlite3.Error, sqlite3.Warning, MemoryError, OverflowError):
        return WRONG
    return RIGHT if same_rows(right, given, has_outer_order(gold), limits["tolerance"]) else WRONG


@contextmanager
def _open(file: str | None, script: str, until: float) -> Iterator[sqlite3.Connection]:
    """A connection that may only read, and is interrupted at `until` (CPU seconds of this process)."""
    location = f"{Path(file).as_uri()}?mode=ro&immutable=1" if file else "file::memory:"
    with closing(sqlite3.connect(location, uri=True, isolation_level=None)) as connection:
        for limit, value in LIMITS.items():
            connection.setlimit(limit, value)
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        connection.set_progress_handler(lambda: time.process_time() > until, STEPS)
        connection.execute("PRAGMA temp_store = MEMORY")  # a sorter would fill the disk
        connection.set_authorizer(_allow(BUILDING))
        connection.executescript("" if file else script)
        connection.set_authorizer(_allow(READING))
        yield connection


def _allow(actions: set[int]) -> Any:
    def authorize(action: int, _table: str | None, name: str | None, *_place: str | None) -> int:
        forbidden = action == sqlite3.SQLITE_FUNCTION and (name or "").lower() in FORBIDDEN
        return sqlite3.SQLITE_OK if action in actions and not forbidden else sqlite3.SQLITE_DENY

    return authorize


def _fetch(connection: sqlite3.Connection, query: str, max_rows: int) -> Rows:
    rows: Rows = connection.execute(query).fetchmany(max_rows + 1)
    if len(rows) > max_rows:
        raise sqlite3.DataError(f"more than {max_rows} rows")
    return rows


def has_outer_order(query: str) -> bool:
    """Whether the outermost SELECT has an ORDER BY: one in a subquery, window, string or comment doesn't count."""
    depth, top = 0, []
    for character in QUOTED.sub(" ", query):
        depth += (character == "(") - (character == ")")
        top.append(character if depth == 0 else " ")
    return ORDER.search("".join(top)) is not None


def same_rows(gold: Rows, reply: Rows, in_order: bool, tolerance: float) -> bool:
    """Whether two results are equal: row by row, or as multisets of rows."""
    if len(gold) != len(reply):
        return False
    if in_order:
        return all(_same_row(right, row, tolerance) for right, row in zip(gold, reply, strict=True))
    if any(len(row) != len(gold[0]) for row in (*gold, *reply)):
        return False
    left = Counter(map(_typed, gold))
    left.subtract(map(_typed, reply))
    missing = [row for row, count in left.items() for _ in range(count)]
    extra = [row for row, count in left.items() for _ in range(-count)]
    return _matched([_cells(row) for row in missing], [_cells(row) for row in extra], tolerance)


def _matched(gold: Rows, reply: Rows, tolerance: float) -> bool:
    """Whether each row of one has its own equal row in the other: a perfect matching, by augmenting paths.

    Only rows that differ in some decimal come here. Sorting can't pair them, because rounding changes their order.
    """
    rows_like: dict[Any, list[tuple[float, int]]] = {}
    for number, row in enumerate(reply):
        rows_like.setdefault(_exact_part(row), []).append((_first_number(row), number))
    for rows in rows_like.values():
        rows.sort()
    candidates: list[list[int]] = []
    for right in gold:
        rows, value = rows_like.get(_exact_part(right), []), _first_number(right)
        reach = tolerance * abs(value) if math.isfinite(value) else 0.0
        near = rows[bisect_left(rows, (value - reach, -1)) : bisect_right(rows, (value + reach, len(reply)))]
        candidates.append([number for _, number in near if _same_row(right, reply[number], tolerance)])
    owner: dict[int, int] = {}
    choice: dict[int, int] = {}
    return all(_find_partner(row, candidates, owner, choice) for row in range(len(gold)))


def _find_partner(start: int, candidates: list[list[int]], owner: dict[int, int], choice: dict[int, int]) -> bool:
    """Give gold row `start` a row of the reply, moving other gold rows to other candidates if that frees one.

    `owner` maps rows of the reply to gold rows, `choice` is its inverse.
    """
    came_from: dict[int, int] = {}
    queue = deque([start])
    while queue:
        row = queue.popleft()
        for number in candidates[row]:
            if number in came_from:
                continue
            came_from[number] = row
            if number in owner:
                queue.append(owner[number])
                continue
            free: int | None = number
            while free is not None:
                taker = came_from[free]
                freed = choice.get(taker)
                owner[free], choice[taker] = taker, free
                free = freed if taker != start else None
            return True
    return False


def _typed(row: tuple[Any, ...]) -> tuple[tuple[str, Any], ...]:
    """A row that is equal only to one with the same kinds of values: 1 and 1.0 are one number, '1' is text."""
    return tuple(("number" if isinstance(cell, (int, float)) else type(cell).__name__, cell) for cell in row)


def _cells(row: tuple[tuple[str, Any], ...]) -> tuple[Any, ...]:
    return tuple(cell for _, cell in row)


def _exact_part(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The cells that are compared exactly; numbers, of which one side may be a decimal, left out."""
    return tuple(None if isinstance(cell, (int, float)) else (type(cell).__name__, cell) for cell in row)


def _first_number(row: tuple[Any, ...]) -> float:
    return next((float(cell) for cell in row if isinstance(cell, (int, float))), 0.0)


def _same_row(gold: tuple[Any, ...], reply: tuple[Any, ...], tolerance: float) -> bool:
    return len(gold) == len(reply) and all(
        _same_cell(right, cell, tolerance) for right, cell in zip(gold, reply, strict=True)
    )


def _same_cell(gold: Any, reply: Any, tolerance: float) -> bool:
    """Equal, or decimals that differ by at most a share of the gold value. Infinity equals only itself."""
    if isinstance(gold, float) or isinstance(reply, float):
        if not (isinstance(gold, (int, float)) and isinstance(reply, (int, float))):
            return False
        if gold == reply:
            return True
        return math.isfinite(gold) and math.isfinite(reply) and abs(gold - reply) <= tolerance * abs(gold)
    return type(gold) is type(reply) and bool(gold == reply)
