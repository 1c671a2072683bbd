from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsrl.llm import Spending
from dsrl.llm.ratelimit.controller import ClientStatus
from dsrl.pipeline.progress import render
from dsrl.pipeline.progress.snapshot import View, numbers


def status(**given: Any) -> ClientStatus:
    figures: dict[str, Any] = {
        "in_flight": 3, "limit": 4, "ceiling": 8, "waiting": 0, "requests": 10, "throttled": 0,
        "requests_per_second": 2.0, "breaker": None,
    }  # fmt: skip
    return ClientStatus(**(figures | given))


def view(done: int = 0, total: int | None = 100, rate: float = 0.0, **given: Any) -> View:
    return View(label="generate", done=done, total=total, rate=rate, **given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (view(0), "0/100  0/s  ETA ?"),
        (view(4, rate=2.0), "4/100  2/s  ETA ?"),
        (view(20, rate=2.0), "20/100  2/s  ETA 40 s"),
        (view(20, rate=0.01), "20/100  0.01/s  ETA 2.2 h"),
        (view(100, rate=2.0), "100/100  2/s"),
        (view(7, None, 2.0), "7  2/s"),
        (view(7, None, 2.0, figures={"tried": 9}), "7 accepted  2/s"),
    ],
)
def test_nothing_is_said_of_the_end_before_enough_is_done(given: View, words: str) -> None:
    assert render.count(given) == words


@pytest.mark.parametrize(
    ("spent", "done", "projected", "words"),
    [
        (Spending(requests=9, usd=0.02), 4, None, "$0.0200 of about ?"),
        (Spending(requests=9, usd=2.0), 50, 4.0, "$2.00 of about $4.00"),
        (Spending(requests=9, usd=1.0, hit_usd=1.0), 50, 3.0, "$1.00 of about $3.00"),
        (Spending(requests=9, usd=None, known_usd=0.5), 50, None, "dollars at least $0.5000"),
        (Spending(requests=9, usd=None), 50, None, "dollars unknown"),
        (Spending(requests=9, usd=0.0), 50, 0.0, "tokens 0 in, 0 out"),
    ],
)
def test_dollars_are_projected_from_what_is_done_and_unknown_ones_never_zero(
    spent: Spending, done: int, projected: float | None, words: str
) -> None:
    given = view(done, spent=spent)
    assert given.projected_usd == projected
    assert render.segments(given)[-1] == words


@pytest.mark.parametrize(
    ("rejected", "words"),
    [
        (3, ["rejected 3"]),
        (0, []),
        ({}, []),
        ({"duplicate": 2, "no majority": 5}, ["rejected 7: 5 no majority, 2 duplicate"]),
        (
            {name: 6 - place for place, name in enumerate("abcdef")},
            ["rejected 21: 6 a, 5 b, 4 c, 3 d, 3 other"],
        ),
    ],
)
def test_rejected_ones_by_reason(rejected: Any, words: list[str]) -> None:
    assert render.segments(view(figures={"rejected": rejected})) == words


def test_several_clients_are_shown_as_one() -> None:
    given = view(traffic=(status(throttled=1), status(requests=10, breaker=12.4)))
    assert render.segments(given) == ["down for 12 s", "4 requests/s", "in flight 6 (limit 8 of 16)", "429s 5.0%"]


def test_batch_jobs_are_shown_instead_of_a_pace_and_a_limit() -> None:
    jobs = "1 batch job: 2 of 6 requests done, 0 failed"
    batch = status(in_flight=6, limit=50_000, ceiling=50_000, batch=jobs)
    assert render.segments(view(traffic=(batch,))) == [jobs]
    assert render.segments(view(traffic=(batch, status()))) == [jobs, "2 requests/s", "in flight 3 (limit 4 of 8)"]
    assert numbers(view(traffic=(batch,)))["live/generate/concurrency"] == 0.0


def test_the_same_numbers_as_series() -> None:
    spent = Spending(requests=9, input_tokens=100, output_tokens=50, usd=None)
    given = view(50, traffic=(status(),), spent=spent, figures={"tried": 60, "rejected": {"a": 4, "b": 6}})
    assert numbers(given) == {
        "live/generate/accepted": 50.0,
        "live/generate/tried": 60.0,
        "live/generate/rejected": 10.0,
        "live/generate/requests": 9.0,
        "live/generate/input_tokens": 100.0,
        "live/generate/output_tokens": 50.0,
        "live/generate/requests_per_second": 2.0,
        "live/generate/in_flight": 3.0,
        "live/generate/concurrency": 4.0,
        "live/generate/throttled_share": 0.0,
    }


@given(
    st.integers(0, 10**9),
    st.none() | st.integers(0, 10**9),
    st.floats(0, 1e6),
    st.dictionaries(st.text("abc de", min_size=1, max_size=40), st.integers(0, 10**9), max_size=8),
    st.integers(40, 200),
)
def test_no_line_is_wider_than_asked(
    done: int, total: int | None, rate: float, rejected: dict[str, int], width: int
) -> None:
    given = view(done, total, rate, traffic=(status(throttled=3),), figures={"rejected": rejected, "tried": done})
    assert max(map(len, render.lines(given, width))) <= width
