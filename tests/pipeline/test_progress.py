import io
import os
import pty
import re
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from dsrl.pipeline.progress import progress
from dsrl.pipeline.progress.progress import Progress, Task

ROOT = Path(__file__).parents[2]


def quickly(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    """Everything at once, but for what is said otherwise."""
    fast = {"POLL": 0.01, "REDRAW": 0.01, "PLAIN_FIRST": 0.0, "PLAIN_INTERVAL": 0.0, "SERIES_INTERVAL": 0.0}
    for name, value in {**fast, **seconds}.items():
        monkeypatch.setattr(progress, name, value)


def until(condition: Any) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_without_a_terminal_there_are_plain_lines_and_no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    quickly(monkeypatch)
    stream = io.StringIO()
    shown = Progress(stream)
    shown.say("one")
    shown.warn("two")
    with shown.task("generate", 4) as task:
        task.set(3, rejected={"duplicate": 1})
        until(lambda: "3/4" in stream.getvalue())
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["one", "WARNING two"]
    assert lines[-1].startswith("  generate   3/4")
    assert lines[-1].endswith("rejected 1: 1 duplicate")
    assert "\033" not in stream.getvalue()
    assert shown.warnings == ["two"]


def test_plain_lines_come_at_intervals_even_if_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    quickly(monkeypatch, PLAIN_FIRST=0.01, PLAIN_INTERVAL=3600.0)
    stream = io.StringIO()
    with Progress(stream).task("generate", 10):
        until(stream.getvalue)
        time.sleep(0.1)
    assert stream.getvalue().count("\n") == 1


def test_no_plain_line_for_what_is_over_soon() -> None:
    stream = io.StringIO()
    with Progress(stream).task("generate", 1000) as task:
        for _ in range(1000):
            task.advance()
    assert stream.getvalue() == ""


def test_nothing_is_left_running(monkeypatch: pytest.MonkeyPatch) -> None:
    quickly(monkeypatch)
    before = threading.active_count()
    with pytest.raises(RuntimeError), Progress(io.StringIO()).task("generate"):
        raise RuntimeError
    assert threading.active_count() == before


def test_listeners_are_told_at_intervals_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    quickly(monkeypatch)
    told: list[dict[str, Any]] = []
    shown = Progress(io.StringIO())
    shown.listen(told.append)
    with shown.task("training", 4) as task:
        task.series = Path("steps.jsonl")
        until(lambda: told)
        task.set(2)
    assert told[0]["numbers"]["live/training/done"] == 0.0
    assert told[-1]["numbers"]["live/training/done"] == 2.0
    assert told[-1]["series"] == "steps.jsonl"


def test_a_task_inside_another_is_shown_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    quickly(monkeypatch)
    stream = io.StringIO()
    shown = Progress(stream)
    with shown.task("outer", 2), shown.task("inner", 3) as inner:
        inner.set(1)
        until(lambda: "outer" in stream.getvalue() and "1/3" in stream.getvalue())


def test_a_rate_is_that_of_the_last_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    task = Task("x", 1000)
    for second in range(1, 400):
        now[0] = float(second)
        task.advance(10 if second <= 200 else 1)
        task.rate()
    assert task.rate() == pytest.approx(1.0, abs=0.1)


SCRIPT = """
    import sys, time, logging
    from dsrl.pipeline.progress import progress
    progress.REDRAW = 0.05
    from dsrl.llm import Spending
    from dsrl.llm.ratelimit.controller import ClientStatus
    shown = progress.Progress()
    status = ClientStatus(40, 48, 64, 3, 1000, 21, 12.5, None)
    spent = Spending(requests=1000, input_tokens=1_200_000, output_tokens=340_000, usd=3.21)
    shown.follow(lambda: status, lambda: spent)
    with shown.task("generate", 500) as task:
        task.set(125, tried=160, rejected={"no majority": 20, "duplicate": 9})
        time.sleep(0.3)
        shown.warn("something odd")
        logging.getLogger("dsrl").warning("from elsewhere")
        time.sleep(0.3)
    shown.say("generate done")
"""


PANEL = (
    "125/500 accepted",
    "rejected 29: 20 no majority, 9 duplicate",
    "tried 160",
    "12.5 requests/s",
    "in flight 40 (limit 48 of 64)",
    "429s 2.1%",
    "tokens 1.2M in, 340k out",
    "$3.21 of about $12.84",
)


def on_a_terminal(columns: int, **environment: str) -> str:
    """What a real terminal of that width gets to see."""
    ours, theirs = pty.openpty()
    surroundings = {**os.environ, "COLUMNS": str(columns), "LINES": "30", "TERM": "xterm", **environment}
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT)]
    with subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, env=surroundings) as child:
        os.close(theirs)
        pieces = []
        while piece := _read(ours):
            pieces.append(piece)
    os.close(ours)
    assert child.returncode == 0
    return b"".join(pieces).decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so when the other end is closed
        return b""


@pytest.mark.parametrize("columns", [60, 120])
def test_a_terminal_gets_a_panel_that_fits(columns: int) -> None:
    seen = on_a_terminal(columns)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
    for words in PANEL:
        assert words in plain
    assert max(len(row) for row in re.split(r"[\r\n]+", plain)) <= columns
    assert plain.count("WARNING something odd") == 1
    assert plain.count("from elsewhere") == 1
    assert plain.rstrip().endswith("generate done")
    assert "\x1b[33mWARNING" in seen


def test_no_color_means_none() -> None:
    seen = on_a_terminal(80, NO_COLOR="1")
    assert "125/500" in seen
    assert not re.search(r"\x1b\[[0-9;]*[349][0-7]m", seen), "bold and dim are no colours"


def test_a_dumb_terminal_gets_plain_text() -> None:
    seen = on_a_terminal(80, TERM="dumb")
    assert "\x1b" not in seen
    assert "WARNING something odd" in seen
