"""Runs against a teacher with all kinds of faults: nothing is lost, nothing is paid for twice."""

import asyncio
import json
import random
import shlex
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsrl.core.parquet import read_table
from dsrl.data.sample import Sample
from dsrl.llm import Client, Endpoint, Ledger, ReplyCache
from dsrl.llm.client import gather_or_cancel
from tests.command import Outcome
from tests.e2e.runs import Place, metrics
from tests.support.faultserver import Faults, FaultServer, Outage, serve
from tests.support.faultserver.answers import ModelReply

pytestmark = pytest.mark.e2e

CONCURRENCY = 16
SERVICE = Faults(answer="quickstart", latency=0.15, sigma=0.6, shortest=0.02, longest=1.0)
"""Log-normal service times; deterministic replies of the quickstart's rule-based teacher."""
ALL_FAULTS = {
    "429": 0.05,
    "500": 0.03,
    "502": 0.02,
    "503": 0.03,
    "hang": 0.04,
    "drop": 0.03,
    "cut": 0.03,
    "truncated": 0.02,
    "malformed": 0.02,
    "html": 0.01,
    "fields": 0.01,
    "empty": 0.01,
    "trickle": 0.01,
}
"""Faults of the transport, 30 % in total: a retry gets the reply that would have come without them."""
BAD_REPLIES = {"length": 0.06, "filter": 0.06, "refusal": 0.06, "not_json": 0.06, "wrong_schema": 0.06}
"""Faults of the model: the same in every retry, so the candidate is rejected and another replaces it."""


def arguments(server: FaultServer, *more: str) -> tuple[str, ...]:
    """Arguments of a run that stops after `generate`."""
    return (
        "task=quickstart",
        "teacher=server",
        "teacher.model=fault-1",
        f"teacher.base_url={server.url}",
        f"teacher.concurrency={CONCURRENCY}",
        "teacher.backoff=0.05",
        "model=quickstart",
        "n=40",
        "votes=8",
        "stop_after=generate",
        "tracking.enabled=false",
        *more,
    )


def samples(place: Place) -> bytes:
    """The stored table of samples; there must be exactly one."""
    (table,) = place.store.glob("stages/generate/*/samples.parquet")
    return table.read_bytes()


def rejected(place: Place) -> bytes:
    (table,) = place.store.glob("stages/generate/*/rejected.parquet")
    return table.read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Place, int]:
    """An undisturbed run and its number of requests."""
    place = Place(tmp_path_factory.mktemp("whole"), cache)
    with serve(SERVICE) as server:
        place.run(*arguments(server))
        return place, server.stats()["requests"]


def killed(place: Place, server: FaultServer, after: int) -> None:
    """Kill a run once the server has received `after` requests."""
    place.interrupted(*arguments(server), when=lambda: server.stats()["requests"] >= after, sign=signal.SIGKILL)


@pytest.mark.parametrize("seed", range(20))
def test_a_killed_run_ends_with_the_same_bytes_and_pays_nothing_twice(
    seed: int, whole: tuple[Place, int], tmp_path: Path, cache: Path
) -> None:
    finished, num_requests = whole
    place = Place(tmp_path, cache)
    after = random.Random(seed).randrange(1, num_requests - CONCURRENCY)
    with serve(SERVICE) as server:
        killed(place, server, after)
        moment = time.time()
        place.run(*arguments(server))
        twice = {name for name, count in server.paid().items() if count > 1}
        log = server.log()
    early = [entry for entry in log if entry["time"] + entry["seconds"] < moment - 1.0 and entry["status"] == 200]
    long_since_answered = {(entry["key"], entry["seed"] + choice) for entry in early for choice in range(entry["n"])}
    assert not twice & long_since_answered
    assert len(log) <= num_requests + CONCURRENCY
    assert samples(place) == samples(finished)
    assert rejected(place) == rejected(finished)


def test_a_run_killed_repeatedly_finishes(whole: tuple[Place, int], tmp_path: Path, cache: Path) -> None:
    finished, num_requests = whole
    place = Place(tmp_path, cache)
    with serve(SERVICE) as server:
        kills = [num_requests * share // 6 for share in range(1, 5)]
        for after in kills:
            killed(place, server, after)
        place.run(*arguments(server))
        assert len(server.log()) <= num_requests + len(kills) * CONCURRENCY
    assert samples(place) == samples(finished)


def test_no_row_is_lost_under_faults_of_all_kinds(whole: tuple[Place, int], tmp_path: Path, cache: Path) -> None:
    finished, _ = whole
    place = Place(tmp_path, cache)
    with serve(Faults(answer="quickstart", shares=ALL_FAULTS, retry_after=0.2)) as server:
        found = place.run(*arguments(server, "teacher.timeout=2", "teacher.takes_n=false"))
        faults = server.stats()["faults"]
    assert set(faults) > {"429", "500", "hang", "drop", "cut", "truncated", "malformed"}
    assert found["calls"]["teacher"]["errors"] == 0
    assert samples(place) == samples(finished)
    assert rejected(place) == rejected(finished)


def test_a_run_with_missing_replies_fails_and_the_next_requests_only_these(
    whole: tuple[Place, int], tmp_path: Path, cache: Path
) -> None:
    finished, _ = whole
    place = Place(tmp_path, cache)
    with serve(Faults(answer="quickstart", shares={"500": 0.6})) as server:
        hasty = ("teacher.max_retries=0", "retriever=none", "generate.pattern=false")
        stopped = outcome(place, *arguments(server, *hasty))
        assert stopped.code == 3, stopped.err
        server.set(shares={})
        place.run(*arguments(server))
        assert max(server.paid().values()) == 1
    assert samples(place) == samples(finished)


def test_bad_replies_are_counted_and_replaced(tmp_path: Path, cache: Path) -> None:
    place = Place(tmp_path, cache)
    with serve(Faults(answer="quickstart", shares=BAD_REPLIES)) as server:
        found = place.run(*arguments(server))
        assert max(server.paid().values()) == 1
    (table,) = place.store.glob("stages/generate/*/samples.parquet")
    assert len(read_table(table, Sample)) == 40
    rows = found["rows"]["generate"]
    assert rows["in"] == 40 + sum(rows["rejected"].values())
    assert rows["rejected"]
    assert found["calls"]["teacher"]["repairs"] > 0


def busy(log: list[dict[str, Any]], capacity: int) -> float:
    """Share of the server's capacity in use between the first request and the last response."""
    served = [entry for entry in log if entry["status"] == 200]
    start = min(entry["time"] for entry in log)
    end = max(entry["time"] + entry["seconds"] for entry in served)
    return float(sum(entry["service"] for entry in served) / (capacity * (end - start)))


async def ask_all(server: FaultServer, folder: Path, count: int, **settings: Any) -> list[str | None]:
    """Send `count` different questions at once, through the real client and cache."""
    endpoint = Endpoint(model="fault-1", base_url=server.url, max_tokens=64, **settings)
    async with Client(endpoint, ReplyCache(folder / "calls"), Ledger()) as client:
        requests = [endpoint.request([{"role": "user", "content": f"question {i}"}]) for i in range(count)]
        replies = await gather_or_cancel(client.complete(request) for request in requests)
    return [reply.text for (reply,) in replies]


def test_a_storm_of_429s_keeps_the_server_busy(tmp_path: Path) -> None:
    with serve(Faults(latency=0.2, jitter=0.1, capacity=20, retry_after=1.0)) as server:
        texts = asyncio.run(ask_all(server, tmp_path, 1000, concurrency=128))
        log = server.log()
    assert None not in texts
    assert sum(entry["status"] == 429 for entry in log) < 302
    assert busy(log, 20) >= 0.9


@pytest.mark.parametrize("how", ["refuse", "503"])
def test_work_resumes_right_after_an_outage_of_a_minute(how: str, tmp_path: Path) -> None:
    outage = Outage(start=4.0, end=64.0, how=how)
    with serve(Faults(latency=0.2, jitter=0.1, capacity=40, outages=(outage,))) as server:
        server.set(restart=True)
        began = time.time()
        texts = asyncio.run(ask_all(server, tmp_path, 2000, concurrency=32))
        log = server.log()
    assert None not in texts
    after = [entry for entry in log if entry["status"] == 200 and entry["time"] - began > 60.0]
    assert min(entry["time"] for entry in after) - (began + 64.0) < 10.0
    tenth_second = [entry for entry in after if 74.0 <= entry["time"] - began < 75.0]
    assert len(tenth_second) > 80, "ten seconds after the outage, 32 in flight at 0.2 s each are 160 per second"


def test_an_interrupted_pilot_prints_its_cost_and_the_command_to_resume(tmp_path: Path, cache: Path) -> None:
    place = Place(tmp_path, cache)
    with serve(Faults(answer="quickstart", latency=0.5)) as server:
        given = ("plan", "pilot=20", *arguments(server))
        ready: Callable[[], bool] = lambda: server.stats()["requests"] >= 20  # noqa: E731
        stopped = place.interrupted(*given, when=ready, sign=signal.SIGINT)
    assert stopped.code == 130
    assert f"\n  {shlex.join(['dsrl', *given])}\n" in stopped.err
    assert "spent" in stopped.err


def outcome(place: Place, *given: str) -> Outcome:
    return place.dsrl(*given, "hydra.run.dir=run")


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_replies_in_flight_and_prints_the_command_to_resume(
    sign: signal.Signals, tmp_path: Path, cache: Path
) -> None:
    place = Place(tmp_path, cache)
    with serve(Faults(answer="quickstart", latency=1.5, jitter=0.1)) as server:
        given = (*arguments(server), "hydra.run.dir=run")
        ready: Callable[[], bool] = lambda: server.stats()["requests"] >= 40  # noqa: E731
        stopped = place.interrupted(*given, when=ready, sign=sign)
        answered = server.paid()
    assert stopped.code == 128 + sign
    assert f"\n  {shlex.join(['dsrl', *given])}\n" in stopped.err
    assert metrics(tmp_path / "run")["status"] == "interrupted"
    with serve(Faults(answer="quickstart")) as server:
        moved = [argument for argument in arguments(server) if not argument.startswith("hydra.run.dir")]
        place.run(*moved)
        assert not set(server.paid()) & set(answered), "replies in flight at Ctrl-C were paid for and stored"


@pytest.mark.parametrize(
    ("faults", "code", "words"),
    [
        ({"key": "secret"}, 2, ("401", "api_key_env")),
        ({"models": ("other",)}, 2, ("404", "fault-1")),
        ({"shares": {"quota": 1.0}}, 2, ("quota",)),
        ({"shares": {"html": 1.0}}, 2, ("base_url",)),
        ({"context": 50}, 3, ("context",)),
        ({"down": "503"}, 3, ("503",)),
    ],
)
def test_errors_that_no_retry_cures_stop_the_run_with_a_reason(
    faults: dict[str, Any], code: int, words: tuple[str, ...], tmp_path: Path, cache: Path
) -> None:
    place = Place(tmp_path, cache)
    with serve(Faults(answer="quickstart", **faults)) as server:
        stopped = outcome(place, *arguments(server, "teacher.outage=3"))
        assert server.stats()["requests"] < 200
    assert stopped.code == code, stopped.err
    for word in words:
        assert word in stopped.err
    assert "Traceback" not in stopped.err
    shutil.rmtree(place.store)


def test_a_budget_stops_in_time_and_a_higher_one_resumes(whole: tuple[Place, int], tmp_path: Path, cache: Path) -> None:
    finished, _ = whole
    place = Place(tmp_path, cache)
    price = "teacher.price={_target_: dsrl.llm.Price, input: 100.0, output: 100.0, date: '2026-11-20'}"
    with serve(Faults(answer="quickstart")) as server:
        stopped = outcome(place, *arguments(server, price, "budget_usd=1.0"))
        spent = server.stats()
        assert stopped.code == 4, stopped.err
        assert "budget_usd" in stopped.err
        usd = (spent["prompt_tokens"] + spent["completion_tokens"]) * 100e-6
        assert 0.5 < usd <= 1.0
        assert metrics(tmp_path / "run")["calls"]["teacher"]["usd"] == pytest.approx(usd)
        place.run(*arguments(server, price, "budget_usd=1000"))
        assert max(server.paid().values()) == 1
    assert samples(place) == samples(finished)


def test_a_teacher_that_repeats_itself_fails_the_run_with_the_reason(tmp_path: Path, cache: Path) -> None:
    place = Place(tmp_path, cache)
    with serve(Faults(answer="tests.e2e.test_teacher_faults:one_idea")) as server:
        stopped = outcome(place, *arguments(server))
        assert server.stats()["requests"] < 40 * 4 * 3
    assert stopped.code == 3, stopped.err
    assert "duplicate" in stopped.err


def one_idea(body: dict[str, Any], key: str, index: int) -> Any:
    """Always the same question."""
    del key, index
    if "response_format" in body:
        fields = body["response_format"]["json_schema"]["schema"]["properties"]
        values = {"keywords": ["counting"], "pattern": "stories", "input": "Ann has 2 pens.", "output": "#### 2"}
        return ModelReply(json.dumps({name: values[name] for name in fields}))
    return ModelReply("#### 2")
