"""Progress of long work: a live panel on a terminal, occasional plain lines elsewhere.

Workers only set numbers. A thread reads them, several times a second on a terminal and rarely elsewhere.
"""

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, TextIO

from dsrl.pipeline.progress import render, snapshot

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

REDRAW = 0.25
"""Seconds between updates on a terminal."""
POLL = 1.0
"""Seconds between polls elsewhere."""
PLAIN_FIRST, PLAIN_INTERVAL = 10.0, 30.0
"""Seconds to the first plain line, and between them."""
SERIES_INTERVAL = 30.0
"""Seconds between the points of a tracker's series."""
RATE_WINDOW = 120.0
"""Seconds over which a rate is averaged."""

Listener = Callable[[dict[str, Any]], None]


class Task:
    """A piece of long work. Its figures are shown beside the count."""

    def __init__(self, label: str, total: int | None) -> None:
        self.label, self.total = label, total
        self.done = 0
        self.figures: dict[str, Any] = {}
        self.series: Path | None = None
        """A growing JSONL file, such as the steps of a training."""
        self._past = deque([(time.monotonic(), 0)])

    def advance(self, count: int = 1, **figures: Any) -> None:
        """Add to the count."""
        self.done += count
        self.figures.update(figures)

    def set(self, done: int, **figures: Any) -> None:
        """Set the count."""
        self.advance(done - self.done, **figures)

    def rate(self) -> float:
        """Units per second over the last minutes."""
        now, done = time.monotonic(), self.done
        while len(self._past) > 1 and now - self._past[0][0] > RATE_WINDOW:
            self._past.popleft()
        since, before = self._past[0]
        if now - self._past[-1][0] >= POLL:
            self._past.append((now, done))
        return (done - before) / max(now - since, 1e-6)


class Progress:
    """Prints what a run is doing to standard error: one line per stage, and the progress of long work."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self.warnings: list[str] = []
        """Warnings, for `metrics.json` and the report."""
        self._tasks: list[Task] = []
        self._traffic: list[Callable[[], snapshot.Traffic]] = []
        self._spent: Callable[[], snapshot.Spent] | None = None
        self._listeners: list[Listener] = []
        self._display: Live | None = None

    def say(self, text: str) -> None:
        """Print a line."""
        display = self._display
        if display is None:
            print(text, file=self.stream, flush=True)
            return
        from rich.text import Text

        display.console.print(Text.from_ansi(text), soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a warning, and keep it for the report."""
        self.warnings.append(text)
        coloured = self.live and not os.environ.get("NO_COLOR")
        self.say(f"\033[33mWARNING\033[0m {text}" if coloured else f"WARNING {text}")

    def begin(self) -> None:
        """Reset the status sources of the previous stage."""
        self._traffic, self._spent = [], None

    def follow(self, traffic: Callable[[], snapshot.Traffic], spent: Callable[[], snapshot.Spent]) -> None:
        """Show a client's traffic and the stage's spending."""
        self._traffic.append(traffic)
        self._spent = spent

    def listen(self, listener: Listener) -> None:
        """Call `listener` with the numbers every half minute and at the end of each task. It must not block."""
        self._listeners.append(listener)

    @contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator[Task]:
        """Track long work; without `total` its end is unknown."""
        task = Task(label, total)
        self._tasks.append(task)
        try:
            if len(self._tasks) > 1:  # shown together with the outer task
                yield task
            else:
                with self._display_task():
                    yield task
        finally:
            self._tasks.remove(task)
            self._notify(task)

    @contextmanager
    def _display_task(self) -> Iterator[None]:
        over = Event()
        display = self._display = self._open_display() if self.live else None
        watch = Thread(target=self._watch, args=(over,), daemon=True)
        watch.start()
        try:
            yield
        finally:
            over.set()
            watch.join()
            self._display = None
            if display is not None:
                display.stop()

    def _open_display(self) -> "Live":
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self.stream)
        display = Live(console=console, auto_refresh=False, transient=True, get_renderable=lambda: self._text(console))
        display.start()
        return display

    def _text(self, console: Any) -> "Text":
        return render.text(map(self.snapshot, tuple(self._tasks)), console.width)

    def _watch(self, over: Event) -> None:
        """Update the display until `over`, or until nothing can be shown because the terminal was closed."""
        line, series = time.monotonic() + PLAIN_FIRST, time.monotonic() + SERIES_INTERVAL
        while not over.wait(REDRAW if self._display else min(POLL, PLAIN_FIRST)):
            now = time.monotonic()
            if now >= series:
                series = now + SERIES_INTERVAL
                self._notify(*self._tasks)
            try:
                if self._display is not None:
                    self._display.refresh()
                elif now >= line:
                    line = now + PLAIN_INTERVAL
                    self._print_lines()
            except (OSError, ValueError):
                if self.stream.closed or not self.live:
                    return
                raise

    def _print_lines(self) -> None:
        for task in tuple(self._tasks):
            print(render.line(self.snapshot(task)), file=self.stream, flush=True)

    def snapshot(self, task: Task) -> snapshot.View:
        """A snapshot of the task."""
        return snapshot.View(
            label=task.label,
            done=task.done,
            total=task.total,
            rate=task.rate(),
            figures=dict(task.figures),
            traffic=tuple(traffic() for traffic in tuple(self._traffic)),
            spent=self._spent() if self._spent is not None else None,
        )

    def _notify(self, *tasks: Task) -> None:
        for task in tasks:
            message = {"numbers": snapshot.numbers(self.snapshot(task)), "series": task.series and str(task.series)}
            for listener in self._listeners:
                listener(message)
