"""How far long work has come: a live line on a terminal, plain lines every few seconds elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

PLAIN_INTERVAL = 10.0
"""Seconds between plain lines."""


class Task:
    """One piece of long work. Figures are shown beside the count."""

    def __init__(self, label: str, total: int | None) -> None:
        self.label, self.total = label, total
        self.done = 0
        self.figures: dict[str, Any] = {}
        self.started = time.monotonic()

    def advance(self, count: int = 1, **figures: Any) -> None:
        """More is done."""
        self.done += count
        self.figures.update(figures)
        self.shown()

    def set(self, done: int, **figures: Any) -> None:
        """So much is done in all."""
        self.advance(done - self.done, **figures)

    def shown(self) -> None:
        """Overridden by the ways of showing."""

    def text(self) -> str:
        """`123/400  12/s  ETA 23 s  accepted=100`."""
        seconds = max(time.monotonic() - self.started, 1e-6)
        rate = self.done / seconds
        parts = [f"{self.done}/{self.total}" if self.total else str(self.done), f"{rate:.3g}/s"]
        if self.total and rate and self.done < self.total:
            parts.append(f"ETA {(self.total - self.done) / rate:.0f} s")
        return "  ".join(parts + [f"{name} {value}" for name, value in self.figures.items()])


class _PlainTask(Task):
    """A line every `PLAIN_INTERVAL` seconds."""

    stream: TextIO
    last = 0.0

    def shown(self) -> None:
        now = time.monotonic()
        if now - max(self.last, self.started) >= PLAIN_INTERVAL:
            self.last = now
            print(f"  {self.label:<10} {self.text()}", file=self.stream, flush=True)


class _LiveTask(Task):
    """A line that rich redraws."""

    def __init__(self, label: str, total: int | None, display: "RichProgress") -> None:
        super().__init__(label, total)
        self.display = display
        self.row = display.add_task(label, total=total, text="")

    def shown(self) -> None:
        self.display.update(self.row, completed=self.done, text=self.text())


class Progress:
    """Writes to standard error what a run is doing: one line a stage, and the course of long work."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.warnings: list[str] = []
        """What was warned of, for `metrics.json` and the report."""

    def say(self, text: str) -> None:
        """One line."""
        print(text, file=self.stream, flush=True)

    def warn(self, text: str) -> None:
        """A line that must not be overlooked."""
        self.warnings.append(text)
        self.say(f"\033[33mWARNING\033[0m {text}" if self.live else f"WARNING {text}")

    @contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator[Task]:
        """Long work with a known or unknown end."""
        if not self.live:
            plain = _PlainTask(label, total)
            plain.stream = self.stream
            yield plain
            return
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as RichProgress

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description:<10}"),
            BarColumn(24),
            TextColumn("{task.fields[text]}"),
        )
        with RichProgress(*columns, console=Console(file=self.stream), transient=True) as display:
            yield _LiveTask(label, total, display)
