"""In the child: live metrics that wait for MLflow, and the steps of a training."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from dsrl.infra.tracking.run_entry import numbers

MAX_WAITING = 20_000
"""Points kept while MLflow doesn't answer."""
BATCH = 1000
"""Metrics that MLflow accepts in one call."""


class Point(NamedTuple):
    """A metric's value at one time, in the field order of MLflow's own class."""

    name: str
    value: float
    milliseconds: int
    step: int


class Series:
    """Points not logged yet. After a failure they are sent again with the next message."""

    def __init__(self, write: Callable[[list[Point]], None]) -> None:
        """`write` logs points; raises OSError where the server fails."""
        self._write = write
        self._waiting: list[Point] = []
        self._steps: dict[str, set[int]] = {}
        self._training: str | None = None
        self.dropped = 0

    def add(self, live: dict[str, Any]) -> None:
        """Add live numbers, and new training steps from the file that they name."""
        self._waiting += [
            Point(name, value, live["time"], live["step"]) for name, value in live.get("numbers", {}).items()
        ]
        if live.get("series"):
            self._training = live["series"]
            self._waiting += self._new_steps(live["series"], live["series"], live["time"])
        surplus = max(0, len(self._waiting) - MAX_WAITING)
        self.dropped += surplus
        del self._waiting[:surplus]

    def rest(self, path: str | None, now: int) -> list[Point]:
        """All waiting points, and training steps not logged yet."""
        return self._waiting + (self._new_steps(path, self._training or path, now) if path else [])

    def log(self) -> None:
        """Log the waiting points as far as MLflow accepts them now."""
        try:
            while self._waiting:
                self._write(self._waiting[:BATCH])
                del self._waiting[:BATCH]
        except OSError as error:
            print(f"live series: {error}", file=sys.stderr)

    def _new_steps(self, path: str, training: str, now: int) -> list[Point]:
        logged = self._steps.setdefault(training, set())
        rows = {number: row for number, row in steps(Path(path)) if number not in logged}
        logged.update(rows)
        return [
            Point(name, value, now, number)
            for number, row in rows.items()
            for name, value in numbers(row, "train").items()
            if name != "train/step"
        ]


def steps(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Number and metrics of every step, without a last line cut off by a kill."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    rows = [json.loads(line) for line in lines if line.strip()]
    return [(int(row.get("step", number)), row) for number, row in enumerate(rows)]
