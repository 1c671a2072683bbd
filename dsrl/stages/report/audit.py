"""Manual audit of labels: a stratified draw of samples, the CSV sheet to fill in, and what the verdicts say about
all."""

import csv
import io
import json
import random
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dsrl.core.errors import UserError
from dsrl.core.statistics import wilson_interval
from dsrl.data.sample import Sample
from dsrl.stages.report.labels import vote_agreement

LabelVerdict = Literal["right", "wrong", "unclear"]

LEVELS = ((1.0, "all agree"), (0.9, "90 % and more"), (0.75, "75 to 90 %"), (0.5, "50 to 75 %"), (0.0, "under half"))
"""Least share of the answers received that agree with the label -> name of the stratum."""
UNVOTED = "no votes"
PSEUDO_ROWS = 4.0
"""Rows with the pooled share that smooth each stratum's share in its variance: five rows without an error do not prove
that the stratum has none."""

COLUMNS = ("id", "input", "answer", "correct", "note", "solution", "stratum", "share", "source")
REQUIRED = ("id", "correct", "source")
WORDS: dict[str, LabelVerdict] = {
    **dict.fromkeys(("y", "yes", "1", "true", "right"), "right"),
    **dict.fromkeys(("n", "no", "0", "false", "wrong"), "wrong"),
    **dict.fromkeys(("?", "unclear"), "unclear"),
}
ALLOWED = "y (the answer is right), n (it is wrong), ? (can't tell), or empty (not judged yet)"
MAX_CELL = 30_000
"""Spreadsheets split a cell after 32,767 characters."""
MAX_SOLUTION = 1500
MAX_READ_CELL = 1 << 30
ENCODINGS = ("utf-8-sig", "cp1252")
FORMULA = re.compile(r"[=+\-@\t\r]")
SOURCE = re.compile(r"[a-z_]+/[0-9a-f]+")
NUMBER = re.compile(r"-?\d{1,15}(\.\d{1,12})?")
REWRITTEN = re.compile(r"[\d.,:/eE+\- ]+")
"""What a spreadsheet may take for a number, a date or a time, and save as a different one."""


def stratum_of(sample: Sample) -> str:
    """The level of agreement among the votes for the sample's label."""
    share = vote_agreement(sample.votes) if sample.votes else None
    return UNVOTED if share is None else next(name for least, name in LEVELS if share >= least)


def stratum_sizes(samples: Sequence[Sample]) -> dict[str, int]:
    """Number of samples in every stratum that has any, the strongest agreement first."""
    counts = Counter(map(stratum_of, samples))
    return {name: counts[name] for name in [*(name for _, name in LEVELS), UNVOTED] if counts[name]}


def draw_stratified(samples: Sequence[Sample], rows: int, seed: int) -> list[Sample]:
    """A random draw within each stratum, shuffled so that the order does not reveal the strata to the judge."""
    rng = random.Random(seed)
    drawn: list[Sample] = []
    for name, number in allocate_rows(stratum_sizes(samples), rows).items():
        drawn += rng.sample([sample for sample in samples if stratum_of(sample) == name], number)
    rng.shuffle(drawn)
    return drawn


def allocate_rows(strata: Mapping[str, int], rows: int) -> dict[str, int]:
    """Rows to draw from each stratum: half of them in equal parts, half by size, and never more than there are."""
    total = sum(strata.values())
    rows = min(rows, total)
    ideal = {name: rows / 2 / len(strata) + rows / 2 * size / total for name, size in strata.items()}
    given = {name: min(size, int(ideal[name])) for name, size in strata.items()}
    while sum(given.values()) < rows:
        unfilled = [name for name, size in strata.items() if given[name] < size]
        given[max(unfilled, key=lambda name: ideal[name] - given[name])] += 1
    return given


@dataclass(frozen=True)
class Stratum:
    """Rows with similar agreement: how many exist, how many were judged, and how many of those are wrong."""

    name: str
    size: int
    judged: int
    wrong: int

    @property
    def share(self) -> float:
        return self.wrong / self.judged

    @property
    def interval(self) -> tuple[float, float]:
        """Of width 0 if all rows were judged."""
        return (self.share, self.share) if self.judged >= self.size else wilson_interval(self.share, self.judged)


@dataclass(frozen=True)
class AuditResult:
    """Share of wrong labels among all rows, estimated from the judged ones."""

    judged: int
    unclear: int
    """Rows that the judge could not decide; excluded from the estimate."""
    blank: int
    estimate: float
    low: float
    high: float
    strata: tuple[Stratum, ...]
    unseen: tuple[str, ...]
    """Strata without a judged row; excluded from the estimate."""

    def metrics(self, source: str) -> dict[str, Any]:
        """For `audit.json` and `metrics.json`; `source` is the stage and key of the audited entry."""
        rows = [
            {"stratum": part.name, "rows": part.size, "judged": part.judged, "wrong": part.wrong}
            | ({"share": part.share, "low": part.interval[0], "high": part.interval[1]} if part.judged else {})
            for part in self.strata
        ]
        return {
            "source": source,
            "judged": self.judged,
            "unclear": self.unclear,
            "blank": self.blank,
            "estimate": self.estimate,
            "low": self.low,
            "high": self.high,
            "strata": rows,
            "unseen": list(self.unseen),
        }


def estimate_error(samples: Sequence[Sample], verdicts: Mapping[str, LabelVerdict | None]) -> AuditResult:
    """The share of wrong labels, from verdicts by sample id (None: not judged). Raises `ValueError` if none is
    judged."""
    by_id = {sample.id: sample for sample in samples}
    judged = Counter(stratum_of(by_id[name]) for name, verdict in verdicts.items() if verdict in ("right", "wrong"))
    wrong = Counter(stratum_of(by_id[name]) for name, verdict in verdicts.items() if verdict == "wrong")
    strata = tuple(Stratum(name, size, judged[name], wrong[name]) for name, size in stratum_sizes(samples).items())
    estimate, low, high = stratified_share(strata)
    given = Counter(verdicts.values())
    return AuditResult(
        judged=judged.total(),
        unclear=given["unclear"],
        blank=given[None],
        estimate=estimate,
        low=low,
        high=high,
        strata=strata,
        unseen=tuple(part.name for part in strata if not part.judged),
    )


def stratified_share(strata: Sequence[Stratum]) -> tuple[float, float, float]:
    """The strata's shares weighted by size, with Wilson's 95 % interval at the effective sample size: that of a simple
    random draw with the same variance. Strata without a judged row are left out. Raises `ValueError` if all are."""
    known = [stratum for stratum in strata if stratum.judged]
    if not known:
        raise ValueError("nothing was judged")
    total = sum(stratum.size for stratum in known)
    pooled = (sum(stratum.wrong for stratum in known) + 0.5) / (sum(stratum.judged for stratum in known) + 1)
    value = smooth = variance = 0.0
    for stratum in known:
        weight = stratum.size / total
        share = (stratum.wrong + PSEUDO_ROWS * pooled) / (stratum.judged + PSEUDO_ROWS)
        value += weight * stratum.share
        smooth += weight * share
        if stratum.judged < stratum.size:
            variance += weight**2 * share * (1 - share) / stratum.judged
    if variance == 0.0:
        return value, value, value
    return (value, *wilson_interval(value, smooth * (1 - smooth) / variance))


def audit_path(store: Path, key: str) -> Path:
    """Where the result for a store entry is kept."""
    return store / "audits" / f"{key}.json"


def find_audit(metrics: Mapping[str, Any], store: Path) -> dict[str, Any] | None:
    """The audit of this run's samples, from the latest stage that has one."""
    paths = (audit_path(store, key) for key in reversed(metrics.get("keys", {}).values()))
    found = next((path for path in paths if path.is_file()), None)
    return None if found is None else json.loads(found.read_text(encoding="utf-8"))


def write_sheet(path: Path, samples: Sequence[Sample], source: str) -> None:
    """Write a CSV file to fill in. `source` is the stage and key of the samples' store entry. Raises `UserError` if the
    file exists or can't be written."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\r\n")
    table.writeheader()
    for sample in samples:
        table.writerow({name: guard_cell(value) for name, value in sheet_row(sample, source).items()})
    try:
        with path.open("x", encoding="utf-8-sig", newline="") as file:
            file.write(text.getvalue())
    except FileExistsError as error:
        raise UserError(
            f"{path} exists already and may hold verdicts", next_step="give out=OTHER.csv, or remove the file"
        ) from error
    except OSError as error:
        raise UserError(f"can't write {path}", got=error.strerror, next_step="give out=FILE.csv") from error


def sheet_row(sample: Sample, source: str) -> dict[str, str]:
    share = vote_agreement(sample.votes) if sample.votes else None
    return {
        "id": sample.id,
        "input": _cut(sample.input, MAX_CELL),
        "answer": _cut(sample.answer, MAX_CELL),
        "correct": "",
        "note": "",
        "solution": _cut(sample.solution or "", MAX_SOLUTION),
        "stratum": stratum_of(sample),
        "share": "" if share is None else f"{share:.3f}",
        "source": source,
    }


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]} [...]"


def guard_cell(cell: str) -> str:
    """Put an apostrophe before a cell that a spreadsheet would run as a formula or save as a different value."""
    if not cell or NUMBER.fullmatch(cell):
        return cell
    return f"'{cell}" if FORMULA.match(cell) or REWRITTEN.fullmatch(cell) else cell


def read_sheet(path: Path) -> tuple[dict[str, LabelVerdict | None], str]:
    """Verdicts by sample id, and the source. Raises `UserError` naming the row that can't be read."""
    verdicts: dict[str, LabelVerdict | None] = {}
    source = ""
    for number, cells in _read_rows(path):
        row = f"{path}, row {number}"
        name, word = cells["id"], cells["correct"].strip().lower()
        if not name:
            raise UserError(f"{row}: no id", next_step="keep the column id as `dsrl audit write` wrote it")
        if name in verdicts:
            raise UserError(f"{row}: this id is in an earlier row too", got=name, next_step="remove one of the rows")
        if word and word not in WORDS:
            raise UserError(f"{row}: column correct holds no verdict", got=cells["correct"], allowed=ALLOWED)
        if not SOURCE.fullmatch(cells["source"]) or cells["source"] != (source or cells["source"]):
            raise UserError(
                f"{row}: the column source must hold the same stage/key in every row",
                got=cells["source"] or "an empty cell",
                next_step="keep it as `dsrl audit write` wrote it, and read the sheets of several runs one by one",
            )
        verdicts[name], source = WORDS[word] if word else None, cells["source"]
    if not verdicts:
        raise UserError(f"{path}: no rows", next_step="dsrl audit write writes a sheet")
    return verdicts, source


def _read_rows(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Number and cells of every row that is not empty, numbered as in a spreadsheet: the header is row 1."""
    text = _decode(path)
    if text.lower().startswith("sep="):
        text = text.partition("\n")[2]
    separator = max(",;\t", key=text.partition("\n")[0].count)
    csv.field_size_limit(MAX_READ_CELL)  # 131,072 by default, less than a long question
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    names: list[str] = []
    try:
        for number, cells in enumerate(reader, start=1):
            if not names:
                names = [cell.strip().lower() for cell in cells]
                if missing := [name for name in REQUIRED if name not in names]:
                    raise UserError(
                        f"{path}: no column {' '.join(missing)}",
                        got=textwrap.shorten(", ".join(names), 200),
                        allowed=f"the columns of `dsrl audit write`; {', '.join(REQUIRED)} are required",
                    )
            elif any(cell.strip() for cell in cells):
                padded = [*cells, *[""] * (len(names) - len(cells))]
                yield number, {name: cell.strip().removeprefix("'") for name, cell in zip(names, padded, strict=False)}
    except csv.Error as error:
        raise UserError(f"{path} can't be read as CSV", got=str(error), next_step="save it as CSV UTF-8") from error


def _decode(path: Path) -> str:
    """The file's text in UTF-8, or in what a spreadsheet saved instead: UTF-16 or Windows-1252."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"can't read {path}", got=error.strerror, next_step="dsrl audit write writes a sheet"
        ) from error
    utf_16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    for encoding in ("utf-16",) if utf_16 else ENCODINGS:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise UserError(f"{path}: not a text in UTF-8, UTF-16 or Windows-1252", next_step="save it as CSV UTF-8")
