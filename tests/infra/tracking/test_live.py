import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from dsrl.infra.tracking.client import LiveMetrics
from dsrl.infra.tracking.mlflow_child import follow
from dsrl.infra.tracking.series import MAX_WAITING, Point, Series

MESSAGE = {"numbers": {"live/generate/done": 3.0}, "series": None}


@contextmanager
def reader(code: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_lines_go_into_the_pipe_one_by_one() -> None:
    with reader("import sys; print(sys.stdin.read())") as process:
        live = LiveMetrics(process)
        for _ in range(3):
            live(MESSAGE)
        live.end()
        said, _ = process.communicate("the end\n")
    *points, end = said.strip().split("\n")
    assert [json.loads(point)["live"]["numbers"] for point in points] == [MESSAGE["numbers"]] * 3
    assert end == "the end"
    assert live.dropped == 0


def test_a_reader_that_hangs_holds_up_nobody() -> None:
    with reader("import time; time.sleep(600)") as process:
        live = LiveMetrics(process)
        for _ in range(5000):
            live(MESSAGE)
    assert 0 < live.dropped < 5000
    live(MESSAGE)  # the pipe is closed by now


def test_a_reader_that_is_gone_holds_up_nobody() -> None:
    with reader("") as process:
        process.wait()
        live = LiveMetrics(process)
        live(MESSAGE)
        live.end()
    assert live.dropped == 1


def test_what_does_not_fit_into_one_write_is_dropped() -> None:
    with reader("import sys; print(sys.stdin.read())") as process:
        live = LiveMetrics(process)
        live({"numbers": {"x" * 5000: 1.0}})
        live.end()
        assert process.communicate("")[0].strip() == ""
    assert live.dropped == 1


class Server:
    """Takes points as MLflow does, unless it is down."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.down = False

    def __call__(self, points: list[Point]) -> None:
        if self.down:
            raise ConnectionError("down")
        self.points += points


def live(number: int, series: Path | None = None) -> dict[str, Any]:
    return {
        "time": 1000 * number,
        "step": number,
        "numbers": {"live/x/done": float(number)},
        "series": str(series or ""),
    }


def test_points_wait_for_a_server_that_is_down(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server()
    series = Series(server)
    server.down = True
    series.add(live(1))
    series.log()
    assert "down" in capsys.readouterr().err
    server.down = False
    series.add(live(2))
    series.log()
    assert server.points == [("live/x/done", 1.0, 1000, 1), ("live/x/done", 2.0, 2000, 2)]
    assert series.rest(None, 0) == []


def test_too_many_that_wait_are_counted() -> None:
    series = Series(Server())
    series.add({"time": 1, "step": 1, "numbers": {f"n{number}": 1.0 for number in range(MAX_WAITING + 7)}})
    assert series.dropped == 7
    assert len(series.rest(None, 0)) == MAX_WAITING


def test_a_training_s_steps_are_logged_once(tmp_path: Path) -> None:
    work, entry = tmp_path / "work.jsonl", tmp_path / "entry.jsonl"
    rows = [json.dumps({"step": step, "reward": step / 10}) + "\n" for step in range(1, 6)]
    server = Server()
    series = Series(server)
    for until in (2, 4):
        work.write_text("".join(rows[:until]) + '{"step": 9, "rew')
        series.add(live(until, work))
        series.log()
    steps = [point.step for point in server.points if point.name == "train/reward"]
    assert steps == [1, 2, 3, 4]
    entry.write_text("".join(rows))
    assert [point.step for point in series.rest(str(entry), 0)] == [5]


def test_a_reused_training_is_logged_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "entry.jsonl").write_text('{"step": 1, "reward": 0.5}\n')
    (point,) = Series(Server()).rest(str(tmp_path / "entry.jsonl"), 0)
    assert point == ("train/reward", 0.5, 0, 1)


@pytest.mark.parametrize(
    ("end", "closing"), [('{"status": "FINISHED"}\n', {"status": "FINISHED"}), ("", {"status": "KILLED"})]
)
def test_the_last_line_ends_the_run(end: str, closing: dict[str, Any]) -> None:
    server, lines = Server(), SimpleQueue[str]()
    for line in (json.dumps({"live": live(1)}), json.dumps({"live": live(2)}), end):
        lines.put(line)
    series = Series(server)
    assert follow(series, lines) == closing
    assert len(server.points) + len(series.rest(None, 0)) == 2
