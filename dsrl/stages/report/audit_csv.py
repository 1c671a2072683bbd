"""The audit sheet: a CSV file that spreadsheets open as it is, and that is read back as they save it."""

import csv
import io
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dsrl.core.errors import UserError
from dsrl.data.sample import Sample
from dsrl.stages.report.audit import Verdict, stratum
from dsrl.stages.report.labels import agreement

COLUMNS = ("id", "input", "answer", "correct", "note", "solution", "stratum", "share", "source")
NEEDED = ("id", "correct", "source")
WORDS: dict[str, Verdict] = {
    **dict.fromkeys(("y", "yes", "1", "true", "right"), "right"),
    **dict.fromkeys(("n", "no", "0", "false", "wrong"), "wrong"),
    **dict.fromkeys(("?", "unclear"), "unclear"),
}
ALLOWED = "y (the answer is right), n (it is wrong), ? (can't tell), or empty (not judged yet)"
SOLUTION_LENGTH = 1500
ENCODINGS = ("utf-8-sig", "cp1252")
FORMULA = re.compile(r"[=+\-@\t\r]")
SOURCE = re.compile(r"[a-z_]+/[0-9a-f]+")
NUMBER = re.compile(r"-?\d{1,15}(\.\d{1,12})?")
REWRITTEN = re.compile(r"[\d.,:/eE+\- ]+")
"""What a spreadsheet may take for a number, a date or a time, and write back as another one."""


def write(path: Path, samples: Sequence[Sample], source: str) -> None:
    """Write the sheet; `source` says which entry of the store the samples are from. Raises `UserError` if it can't."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\r\n")
    table.writeheader()
    table.writerows({name: guarded(value) for name, value in row(sample, source).items()} for sample in samples)
    try:
        with path.open("x", encoding="utf-8-sig", newline="") as file:
            file.write(text.getvalue())
    except FileExistsError as error:
        raise UserError(
            f"{path} is there already, and may hold judgements", next_step="give out=OTHER.csv, or remove it"
        ) from error
    except OSError as error:
        raise UserError(f"can't write {path}", got=error.strerror, next_step="give out=FILE.csv") from error


def row(sample: Sample, source: str) -> dict[str, str]:
    """One line of the sheet, with the cells to be filled in empty."""
    share = agreement(sample.votes) if sample.votes else None
    solution = sample.solution or ""
    if len(solution) > SOLUTION_LENGTH:
        solution = f"{solution[:SOLUTION_LENGTH]} [...]"
    return {
        "id": sample.id,
        "input": sample.input,
        "answer": sample.answer,
        "correct": "",
        "note": "",
        "solution": solution,
        "stratum": stratum(sample),
        "share": "" if share is None else f"{share:.3f}",
        "source": source,
    }


def guarded(cell: str) -> str:
    """The cell with an apostrophe before what a spreadsheet would run as a formula or write back as something else."""
    if not cell or NUMBER.fullmatch(cell):
        return cell
    return f"'{cell}" if FORMULA.match(cell) or REWRITTEN.fullmatch(cell) else cell


def read(path: Path) -> tuple[dict[str, Verdict | None], str]:
    """Verdicts by sample id, and the source. Raises `UserError` naming the row of whatever can't be read."""
    rows = list(table(path))
    if not rows:
        raise UserError(f"{path}: no rows", next_step="dsrl audit write makes a sheet")
    verdicts: dict[str, Verdict | None] = {}
    for number, cells in rows:
        name = cells["id"]
        if not name:
            raise UserError(f"{path}, row {number}: no id", next_step="leave the column id as it was written")
        if name in verdicts:
            raise UserError(f"{path}, row {number}: this id stands in an earlier row too", got=name)
        verdicts[name] = verdict(cells["correct"], f"{path}, row {number}")
    sources = {cells["source"] for _, cells in rows}
    if len(sources) != 1 or not SOURCE.fullmatch(next(iter(sources))):
        raise UserError(
            f"{path}: the column source should hold the same stage/key in every row",
            got=sorted(sources),
            next_step="leave it as `dsrl audit write` wrote it; read sheets of several runs one by one",
        )
    return verdicts, sources.pop()


def verdict(cell: str, where: str) -> Verdict | None:
    """What a judge wrote; None for an empty cell."""
    word = cell.strip().lower()
    if word and word not in WORDS:
        raise UserError(f"{where}: correct holds no verdict", got=cell, allowed=ALLOWED)
    return WORDS[word] if word else None


def table(path: Path) -> Iterable[tuple[int, Mapping[str, str]]]:
    """Number and cells of every row that holds anything, as spreadsheets count rows: the header is row 1."""
    text = decoded(path)
    if text.lower().startswith("sep="):
        text = text.partition("\n")[2]
    separator = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    names: list[str] = []
    try:
        for number, cells in enumerate(reader, start=1):
            if not names:
                names = [cell.strip().lower() for cell in cells]
                _check(path, names)
            elif any(cell.strip() for cell in cells):
                padded = [*cells, *[""] * (len(names) - len(cells))]
                yield number, {name: cell.strip().removeprefix("'") for name, cell in zip(names, padded, strict=False)}
    except csv.Error as error:
        raise UserError(f"{path} is no CSV file that can be read", got=str(error)) from error


def _check(path: Path, names: Sequence[str]) -> None:
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise UserError(
            f"{path}: no column {' '.join(missing)}",
            got=textwrap.shorten(", ".join(names), 200),
            allowed=f"the columns of `dsrl audit write`; of them {', '.join(NEEDED)} are read",
        )


def decoded(path: Path) -> str:
    """The file's text: UTF-8 as written, or what a spreadsheet saved in its place (Windows-1252, UTF-16)."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"can't read {path}", got=error.strerror, next_step="dsrl audit write makes a sheet") from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings: tuple[str, ...] = ("utf-16",)
    else:
        encodings = ENCODINGS
    for encoding in encodings:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise UserError(f"{path}: no text in UTF-8, UTF-16 or Windows-1252", next_step="save it as CSV UTF-8")
