import io

import pytest

from dsrl import progress
from dsrl.progress import Progress, Task


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_there_are_plain_lines_and_no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_INTERVAL", 0.0)
    stream = io.StringIO()
    shown = Progress(stream)
    shown.say("one")
    shown.warn("two")
    with shown.task("generate", 4) as task:
        task.advance(2, rejected=1)
        task.set(3)
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["one", "WARNING two"]
    assert lines[2].startswith("  generate   2/4")
    assert lines[2].endswith("rejected 1")
    assert "3/4" in lines[3]
    assert "\033" not in stream.getvalue()
    assert shown.warnings == ["two"]


def test_plain_lines_come_at_intervals_not_at_every_step() -> None:
    stream = io.StringIO()
    with Progress(stream).task("generate", 1000) as task:
        for _ in range(1000):
            task.advance()
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_live_line_and_coloured_warnings() -> None:
    stream = Terminal()
    shown = Progress(stream)
    shown.warn("careful")
    with shown.task("score", 2) as task:
        task.advance(figure=3)
    assert "\033[33mWARNING\033[0m careful" in stream.getvalue()
    assert "score" in stream.getvalue()


@pytest.mark.parametrize(("total", "done", "words"), [(10, 0, "0/10"), (None, 7, "7  "), (10, 10, "10/10")])
def test_a_tasks_text_holds_count_rate_and_figures(total: int | None, done: int, words: str) -> None:
    task = Task("x", total)
    task.set(done, accepted=5)
    assert task.text().startswith(words)
    assert task.text().endswith("accepted 5")
    assert ("ETA" in task.text()) is (done not in (0, total) and total is not None)
