"""What a task's data and grader are worth: ill-formed rows, gold answers that grade themselves, near misses."""

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dsrl.cli.tasks.near_misses import misses
from dsrl.core.digest import normalised
from dsrl.data.fields import lookup
from dsrl.data.images import map_in_threads
from dsrl.data.readers import Rows
from dsrl.data.source import Item, Source
from dsrl.data.task import Task
from dsrl.graders import Choice, Code, Grader, Label, Math, Number, Sql
from dsrl.graders.base import alternatives, first_alternative
from dsrl.graders.choice import option_texts
from dsrl.graders.constants import paid_constants

FEW: dict[type[Grader], int] = {Code: 3, Math: 25, Sql: 25}
"""Items whose near misses are tried, for kinds that compare in another process."""
MANY = 200
ROUNDED = re.compile(r"-?\d*\.\d{5,}")
LIMITED = re.compile(r"\b(?:limit\s+\d|order\s+by)\b", re.IGNORECASE)
NOW = re.compile(r"\bcurrent_(?:date|time)|['\"]now['\"]", re.IGNORECASE)
NEIGHBOURS = 20
"""Items looked at for an answer that is not the same."""


@dataclass(frozen=True)
class Fault:
    """Something about one row or demo, counted from 1."""

    row: int
    what: str


@dataclass(frozen=True)
class Case:
    """All replies of one kind of near miss."""

    name: str
    replies: int
    right: int
    """How many were graded right."""
    expected: str
    """`all`, `none`, or `-` where either will do."""
    wrong: list[str] = field(default_factory=list)
    """Replies that were graded otherwise than expected."""


@dataclass(frozen=True)
class Read:
    """A data set, read by the task's answer kind."""

    rows: Rows
    items: dict[int, Item]
    """Row number -> item; without the ill-formed ones."""
    faults: list[Fault]


def read(source: Source, grader: Grader) -> Read:
    """All rows of a source, the ill-formed ones among the faults. Raises `UserError` where it can't be had."""
    rows = source.rows()
    drawn = map_in_threads(source.image_columns.find_fault, rows) if source.images else itertools.repeat(None)
    pairs = enumerate(zip(rows, drawn, strict=False), 1)
    found = {number: fault or source.read_item(row, grader) for number, (row, fault) in pairs}
    items = {number: item for number, item in found.items() if isinstance(item, Item)}
    faults = [Fault(number, item) for number, item in found.items() if isinstance(item, str)]
    return Read(rows, items, faults)


def demo_faults(task: Task) -> Iterator[Fault]:
    """Demos whose output this task's grader wouldn't read, and demos that stand there twice."""
    seen: set[str] = set()
    for number, demo in enumerate(task.demos, 1):
        if task.answer.for_question(demo.input).parse(demo.output) is None:
            yield Fault(number, f"its output holds no answer in the output format: {demo.output[-60:]!r}")
        if normalised(demo.input) in seen:
            yield Fault(number, "its input stands there before")
        seen.add(normalised(demo.input))


def gold_faults(task: Task, found: Read, output: str) -> Iterator[Fault]:
    """Gold answers, and gold solutions in the output format, that the grader calls wrong."""
    for number, item in found.items.items():
        grader = task.answer.for_question(item.input)
        written = [] if _tests_alone(grader, item) else [grader.write(item.answer)]
        solution = found.rows[number - 1].get(output)
        if isinstance(solution, str) and grader.parse(solution) is not None and not isinstance(grader, Code):
            written.append(solution)
        for grade in grader.grade_many([(text, item.answer) for text in written]):
            if not (grade.correct and grade.format_ok):
                yield Fault(number, f"the grader calls its own gold answer {item.answer[:60]!r} {grade.reason}")


def near_misses(task: Task, items: Sequence[Item], most: int | None = None) -> list[Case]:
    """What the grader says of replies that are nearly right."""
    kept = most or next((few for kind, few in FEW.items() if isinstance(task.answer, kind)), MANY)
    spread = [items[place * len(items) // min(kept, len(items))] for place in range(min(kept, len(items)))]
    table: dict[tuple[str, bool | None], list[tuple[str, bool]]] = {}
    for place, item in enumerate(spread):
        if _tests_alone(task.answer, item):
            continue
        grader = task.answer.for_question(item.input)
        made = list(misses(task, item, _other(grader, item, spread[place + 1 :] + spread[:place])))
        grades = grader.grade_many([(miss.reply, item.answer) for miss in made])
        for miss, grade in zip(made, grades, strict=True):
            table.setdefault((miss.case, miss.right), []).append((miss.reply, grade.correct))
    return [_case(name, right, graded) for (name, right), graded in table.items()]


def constants_that_pay(grader: Grader, items: Sequence[Item]) -> tuple[Counter[str], int]:
    """Replies that know nothing of the question and are graded right: name -> number of items; and the items tried."""
    most = next((max(1, few // 5) for kind, few in FEW.items() if isinstance(grader, kind)), 25)
    spread = [items[place * len(items) // min(most, len(items))] for place in range(min(most, len(items)))]
    paid = [paid_constants(grader.for_question(item.input), item.answer) for item in spread]
    return Counter(constant.name for constants in paid for constant in constants), len(spread)


def _case(name: str, right: bool | None, graded: list[tuple[str, bool]]) -> Case:
    wrong = [] if right is None else [reply for reply, correct in graded if correct != right]
    expected = {None: "-", True: "all", False: "none"}[right]
    return Case(name, len(graded), sum(correct for _, correct in graded), expected, wrong)


def _other(grader: Grader, item: Item, others: Sequence[Item]) -> str | None:
    """An answer of another item that isn't the same here."""
    near = [other.answer for other in others[:NEIGHBOURS] if not _tests_alone(grader, other)]
    right = alternatives(item.answer)
    for answer in map(first_alternative, near):
        if not any(grader.same(grader.read(answer) or answer, one) for one in right):
            return answer
    return None


def _tests_alone(grader: Grader, item: Item) -> bool:
    """A program's tests without a program that passes them can't be written as a reply."""
    return isinstance(grader, Code) and item.answer.startswith("# tests")


def notes(task: Task, found: Read, output: str) -> Iterator[str]:
    """What is worth knowing about a data set, though nothing is wrong with it."""
    items = list(found.items.values())
    if subjects := Counter(item.subject for item in items if item.subject is not None):
        yield f"subjects: {_counts(subjects)}"
    if isinstance(task.answer, (Choice, Label)):
        yield f"answers: {_counts(Counter(sorted(item.answer for item in items)))}"
    asked: dict[str, set[str]] = {}
    for item in items:
        asked.setdefault(normalised(item.input), set()).add(item.answer)
    if len(asked) < len(items) and not task.has_images:  # the same words about another picture
        torn = sum(len(answers) > 1 for answers in asked.values())
        yield f"{len(items) - len(asked)} questions stand there more than once, {torn} with different answers"
    if seen := [number for number, demo in enumerate(task.demos, 1) if normalised(demo.input) in asked]:
        yield f"demos {', '.join(map(str, seen))} stand in the test set"
    if isinstance(task.answer, Choice):
        yield from _option_notes(task.answer, found)
    yield from _gold_notes(task, found, output)


def _gold_notes(task: Task, found: Read, output: str) -> Iterator[str]:
    """Gold answers that a careful reader would look at again."""
    if several := [number for number, item in found.items.items() if len(alternatives(item.answer)) > 1]:
        yield f"{len(several)} rows have several right answers: rows {_some(several)}"
    rounded = [number for number, item in found.items.items() if ROUNDED.fullmatch(item.answer)]
    if rounded and isinstance(task.answer, (Number, Math)):
        yield (
            f"{len(rounded)} gold answers look rounded, such as {found.items[rounded[0]].answer} in row {rounded[0]}: "
            "the exact value is wrong there unless a tolerance is set"
        )
    if isinstance(task.answer, Number):
        cells = {number: lookup(found.rows[number - 1], output) for number in found.items}
        longer = [
            number
            for number, item in found.items.items()
            if isinstance(cells.get(number), str)
            and re.search(r"[^\W\d_]", cells[number].rpartition(task.answer.marker)[2])
        ]
        if longer:
            number = longer[0]
            yield (
                f"{len(longer)} gold answers were read out of longer text, such as row {number}: "
                f"{cells[number][-60:]!r} -> {found.items[number].answer}"
            )
    if isinstance(task.answer, Sql):
        yield from _query_notes(task.answer, found)


def _query_notes(grader: Sql, found: Read) -> Iterator[str]:
    """Gold queries whose result is empty, or depends on the order in which the rows were inserted or on the date."""
    numbers = list(found.items)[:MANY]
    bound = {number: grader.for_question(found.items[number].input) for number in numbers}
    empty = [number for number in numbers if bound[number].same("SELECT 1 WHERE 0", found.items[number].answer)]
    if empty:
        yield f"{len(empty)} gold queries return nothing, so any empty result is right: rows {_some(empty)}"
    limited = [number for number in numbers if LIMITED.search(found.items[number].answer)]
    if limited:
        yield f"{len(limited)} gold queries have an ORDER BY or LIMIT, where ties are arbitrary: rows {_some(limited)}"
    if dated := [number for number in numbers if NOW.search(found.items[number].answer)]:
        yield f"{len(dated)} gold queries depend on today's date: rows {_some(dated)}"


def _option_notes(grader: Choice, found: Read) -> Iterator[str]:
    listed = {number: option_texts(item.input, grader.options) for number, item in found.items.items()}
    if unread := sum(not texts for texts in listed.values()):
        yield f"options can't be read in {unread} questions, so only letters count there"
    if twice := [number for number, texts in listed.items() if len(set(texts.values())) < len(texts)]:
        yield f"equal options in {len(twice)} questions: rows {_some(twice)}"


def _counts(counter: Mapping[Any, int]) -> str:
    shown = ", ".join(f"{name} {count:,}" for name, count in list(counter.items())[:12])
    return shown + (f" and {len(counter) - 12} more" if len(counter) > 12 else "")


def _some(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
