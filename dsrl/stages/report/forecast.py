"""What was expected before the run and what it came to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dsrl.stages.report import formatting

MEASURES = ("requests", "input_tokens", "output_tokens", "usd")


@dataclass(frozen=True)
class Guess:
    """One figure of one stage, ready to print."""

    expected: str
    actual: str
    error: str
    """How much too high the forecast was."""


@dataclass(frozen=True)
class Outcome:
    """One stage, or all of them."""

    stage: str
    guesses: tuple[Guess, ...]
    basis: str


def forecast(metrics: Mapping[str, Any]) -> tuple[Outcome, ...]:
    """The stages that were made in this run, and their sum; empty where nothing was foretold."""
    rows = {stage: row for stage, row in (metrics.get("forecast") or {}).items() if "actual" in row}
    found = [
        Outcome(
            stage, tuple(_guess(name, _expected(row, name), row["actual"].get(name)) for name in MEASURES), row["basis"]
        )
        for stage, row in rows.items()
    ]
    if len(found) > 1:
        found.append(Outcome("in total", tuple(_total(name, list(rows.values())) for name in MEASURES), ""))
    return tuple(found)


def _expected(row: Mapping[str, Any], name: str) -> float | None:
    return row[name]["expected"] if row.get(name) else None


def _total(name: str, rows: list[Mapping[str, Any]]) -> Guess:
    return _guess(name, _sum([_expected(row, name) for row in rows]), _sum([row["actual"].get(name) for row in rows]))


def _sum(values: list[float | None]) -> float | None:
    """Unknown as soon as one part is."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _guess(name: str, expected: float | None, actual: float | None) -> Guess:
    shown = formatting.dollars if name == "usd" else formatting.count
    error = None if expected is None or not actual else expected / actual - 1
    signed = formatting.MISSING if error is None else formatting.signed(f"{100 * error:+.0f}{formatting.THIN}%")
    return Guess(shown(expected), shown(actual), signed)
