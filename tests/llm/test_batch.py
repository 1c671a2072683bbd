import asyncio
import json
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dsrl.core.errors import StageFailed, UserError
from dsrl.data.model import Reply
from dsrl.llm import Client, Endpoint, Ledger, ReplyCache
from dsrl.llm.batch.api import BatchApi
from dsrl.llm.batch.journal import JobJournal, JobResults, custom_id, read_result, remove_finished_jobs
from dsrl.llm.batch.transport import BatchTransport, PollIntervals
from dsrl.llm.completions import Completions
from dsrl.llm.endpoint import Price
from dsrl.llm.failures import CallError
from tests.support.faultserver import FaultServer, serve

QUICK = PollIntervals(gather=0.05, first=0.02, slowest=0.05)
PRICE = Price(input=1.0, output=1.0, date="2026-11-20", batch=0.5)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsrl.llm.batch.transport.PollIntervals", lambda: QUICK)


@pytest.fixture(scope="module")
def running() -> Iterator[FaultServer]:
    with serve() as server:
        yield server


@pytest.fixture
def server(running: FaultServer) -> FaultServer:
    """Without faults and without memory of earlier requests."""
    plain = {"shares": {}, "script": [], "down": None, "context": None, "key": None}
    running.set(clear=True, **plain, batch_seconds=0.0, batch_end="completed", batch_answered=1.0, batch_most=None)
    return running


def endpoint(server: FaultServer, **changes: Any) -> Endpoint:
    settings = {"model": "m", "base_url": server.url, "batch": True, "takes_batch": True, "price": PRICE, "outage": 1.0}
    return Endpoint(**{**settings, **changes})


async def ask(client: Client, questions: range, votes: int = 3) -> list[list[Reply]]:
    requests = [client.endpoint.request([{"role": "user", "content": f"question {i}?"}]) for i in questions]
    return await asyncio.gather(*[client.complete(request, votes) for request in requests])


def asked(folder: Path, teacher: Endpoint, questions: range = range(6), ledger: Ledger | None = None) -> list[Any]:
    """Texts of three votes on each question, through the whole client."""

    async def run() -> list[list[Reply]]:
        async with Client(teacher, ReplyCache(folder), ledger or Ledger()) as client:
            return await ask(client, questions)

    return [[reply.text for reply in replies] for replies in asyncio.run(run())]


def batches(server: FaultServer) -> list[dict[str, Any]]:
    where = urlsplit(server.url)
    connection = HTTPConnection(where.netloc, timeout=10)
    connection.request("GET", "/v1/batches?limit=1000", headers={"Connection": "close"})
    found: list[dict[str, Any]] = json.loads(connection.getresponse().read())["data"]
    connection.close()
    return found


def most_paid(server: FaultServer) -> int:
    return max(server.paid().values())


def test_replies_are_those_of_single_requests_at_the_batch_price(server: FaultServer, tmp_path: Path) -> None:
    ledger, before = Ledger(), len(batches(server))
    texts = asked(tmp_path / "batch", endpoint(server), ledger=ledger)
    assert texts == asked(tmp_path / "single", endpoint(server, batch=False))
    assert len(batches(server)) == before + 1
    (spent,) = ledger.rows().values()
    assert (spent.requests, spent.batch_requests, spent.completions) == (6, 6, 18)
    assert spent.usd == pytest.approx((spent.input_tokens + spent.output_tokens) * 0.5e-6)
    server.set(clear=True)
    assert asked(tmp_path / "batch", endpoint(server)) == texts
    assert server.log() == []


def test_a_budget_holds_at_the_batch_price_and_says_beforehand_where_it_cuts_a_batch(
    server: FaultServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of six requests may cost 3 replies of 4000 tokens, half a dollar a million: $0.006 and its prompt."""
    before = len(batches(server))
    asked(tmp_path / "whole", endpoint(server), ledger=Ledger(budget_usd=0.0362))
    assert len(batches(server)) == before + 1
    assert "batch job;" not in caplog.text
    asked(tmp_path / "cut", endpoint(server), ledger=Ledger(budget_usd=0.0182))
    assert len(batches(server)) == before + 3
    assert caplog.text.count("budget_usd=0.0182 has room for only 3 requests") == 1
    assert "max_tokens=4000" in caplog.text


def test_equal_requests_to_a_server_without_seeds_stay_apart(server: FaultServer, tmp_path: Path) -> None:
    asked(tmp_path, endpoint(server, takes_seed=False, takes_n=False), range(1))
    assert [entry["n"] for entry in server.log()] == [1, 1, 1]


FAULTS: dict[str, dict[str, Any]] = {
    "expired": {"batch_end": "expired", "batch_answered": 0.5},
    "cancelled": {"batch_end": "cancelled", "batch_answered": 0.5},
    "missing lines": {"batch_answered": 0.5},
    "broken lines": {"shares": {"malformed": 0.2, "truncated": 0.2, "same_ids": 0.2}},
    "refused lines": {"shares": {"429": 0.2, "500": 0.2, "empty": 0.2, "fewer": 0.2}},
    "queue full": {"batch_most": 2},
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_a_batch_leaves_open_is_asked_for_in_another(server: FaultServer, tmp_path: Path, name: str) -> None:
    server.set(**FAULTS[name])
    texts = asked(tmp_path / "batch", endpoint(server, max_retries=30))
    assert most_paid(server) == 1
    server.set(shares={}, clear=True)
    assert texts == asked(tmp_path / "single", endpoint(server, batch=False))


def test_a_request_that_never_succeeds_is_missing_after_its_repeats(server: FaultServer, tmp_path: Path) -> None:
    server.set(shares={"500": 1.0})
    assert asked(tmp_path, endpoint(server, max_retries=2), range(2)) == [[None] * 3] * 2
    assert len(server.log()) == 6


def test_a_prompt_that_is_too_long_is_missing_and_the_others_are_not(server: FaultServer, tmp_path: Path) -> None:
    server.set(context=1000)
    long = [{"role": "user", "content": "why? " * 2000}]

    async def run() -> list[list[Reply]]:
        async with Client(endpoint(server, max_tokens=50), ReplyCache(tmp_path), Ledger()) as client:
            return await asyncio.gather(client.complete(client.endpoint.request(long)), *[ask(client, range(3))])  # type: ignore[list-item]

    refused, others = asyncio.run(run())
    assert "context" in (refused[0].error or "")
    assert all(reply.text for replies in others for reply in replies)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("faults", "changes", "said"),
    [
        ({"key": "right"}, {}, "401"),
        ({"shares": {"quota": 1.0}}, {}, "exceeded your current quota"),
        ({"batch_end": "failed"}, {}, "invalid_request: line 1: The file could not be validated"),
        ({"down": "503"}, {"outage": 0.1}, "has been down for"),
        ({"down": "refuse"}, {}, "no connection"),
    ],
)
def test_what_no_repeat_cures_stops_the_run(
    server: FaultServer, tmp_path: Path, faults: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    server.set(**faults)
    with pytest.raises(UserError, match=said):
        asked(tmp_path, endpoint(server, **changes), range(1))


def test_an_endpoint_without_a_batch_api_is_named(server: FaultServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no batch API there"):
        asked(tmp_path, endpoint(server, base_url=server.url.removesuffix("/v1")), range(1))


def test_stopping_does_not_wait_and_the_next_run_takes_up_the_job(
    server: FaultServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.set(batch_seconds=3600.0)

    async def run() -> None:
        async with Client(endpoint(server), ReplyCache(tmp_path), interrupted) as client:
            waiting = asyncio.create_task(ask(client, range(6)))
            while not any("sent to m" in message for message in caplog.messages):  # noqa: ASYNC110  nobody tells us
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            while not (client.status().batch or "").startswith("1 batch job"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            statuses.append(client.status().batch)
            waiting.cancel()

    interrupted, statuses = Ledger(), list[str | None]()
    before = len(batches(server))
    asyncio.run(run())
    job = batches(server)[0]["id"]
    said = f"batch jobs {job} continue: 6 requests, billed later; the same command will fetch their results"
    assert said in caplog.messages
    assert interrupted.sums().requests == 0
    assert statuses[-1] == "1 batch job: 0 of 6 requests done, 0 failed"
    server.set(batch_seconds=0.0)
    resumed = Ledger()
    assert all(text for texts in asked(tmp_path, endpoint(server), ledger=resumed) for text in texts)
    assert (resumed.sums().requests, resumed.sums().batch_requests) == (6, 6)
    assert len(batches(server)) == before + 1
    assert most_paid(server) == 1


def die_at(owner: type, name: str, when: str, nth: int) -> None:
    """From now on, in this process, the nth call of a method is the end, before or after it is done."""
    method: Callable[..., Any] = getattr(owner, name)
    calls = iter(range(1, 1000))

    def last() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    async def dies(*arguments: Any) -> Any:
        number = next(calls)
        if (number, when) == (nth, "before"):
            last()
        value = await method(*arguments)
        return last() if (number, when) == (nth, "after") else value

    def dies_at_once(*arguments: Any, **named: Any) -> Any:
        number = next(calls)
        if (number, when) == (nth, "before"):
            last()
        value = method(*arguments, **named)
        return last() if (number, when) == (nth, "after") else value

    setattr(owner, name, dies if asyncio.iscoroutinefunction(method) else dies_at_once)


STEPS = [
    (JobJournal, "write", "before", 1),
    (JobJournal, "write", "after", 1),
    (BatchApi, "upload", "after", 1),
    (JobJournal, "write", "after", 2),
    (BatchApi, "create", "after", 1),
    (JobJournal, "write", "after", 3),
    (BatchApi, "status", "after", 1),
    (BatchApi, "download", "before", 1),
    (BatchApi, "download", "after", 1),
    (JobJournal, "write", "after", 4),
    (ReplyCache, "put", "before", 1),
    (ReplyCache, "put", "after", 3),
]


@pytest.mark.parametrize(("owner", "name", "when", "nth"), STEPS)
def test_a_kill_between_any_two_steps_makes_nobody_submit_or_pay_twice(
    server: FaultServer, tmp_path: Path, owner: type, name: str, when: str, nth: int
) -> None:
    def doomed() -> None:
        die_at(owner, name, when, nth)
        asked(tmp_path / "batch", endpoint(server))

    before = len(batches(server))
    child = multiprocessing.get_context("fork").Process(target=doomed)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    texts = asked(tmp_path / "batch", endpoint(server))
    assert len(batches(server)) == before + 1
    assert most_paid(server) == 1
    assert texts == asked(tmp_path / "single", endpoint(server, batch=False))


def test_two_processes_that_share_a_store_share_the_jobs(server: FaultServer, tmp_path: Path) -> None:
    server.set(batch_seconds=0.5)
    fork = multiprocessing.get_context("fork")
    others = [fork.Process(target=asked, args=(tmp_path, endpoint(server), range(i, 6))) for i in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert [other.exitcode for other in others] == [0, 0, 0]
    assert most_paid(server) == 1
    assert len(server.paid()) == 18


def test_many_requests_are_cut_into_files(server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsrl.llm.batch.transport.MAX_FILE_BYTES", 900)
    before = len(batches(server))
    assert len(asked(tmp_path, endpoint(server))) == 6
    assert len(batches(server)) > before + 1
    assert most_paid(server) == 1


def test_results_come_in_any_order_and_the_first_of_two_counts(tmp_path: Path) -> None:
    journal = JobJournal(tmp_path)
    with journal.submitting():
        job = journal.begin("url", "m", ("a", "b", "c", "d"))

    def line(name: str, text: str) -> str:
        body = {"choices": [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}]}
        return json.dumps({"custom_id": name, "response": {"status_code": 200, "body": body}})

    output, errors = journal.results(job)
    broken = ["[1]", "{", '{"custom_id": 3}', '{"custom_id": "d", "response": {"status_code": 200, "body": null}}', ""]
    output.write_text("\n".join([line("b", "B"), *broken, line("a", "A"), line("b", "again")]))
    errors.write_text(json.dumps({"custom_id": "c", "error": {"code": "batch_expired", "message": "late"}}) + "\n")
    results = JobResults(journal)
    found = {name: results.find(job, name) for name in ("a", "b", "c", "d", "e")}
    assert [found[name].replies()[0].text for name in "ab"] == ["A", "B"]  # type: ignore[union-attr]
    assert isinstance(found["c"], CallError)
    assert isinstance(found["d"], CallError)
    assert found["e"] is None
    journal.close()


LINES = [
    (
        {"response": {"status_code": 400, "body": {"error": {"code": "context_length_exceeded", "message": "x"}}}},
        "prompt",
    ),
    ({"response": {"status_code": 429, "body": {"error": {"message": "slow down"}}}}, "throttled"),
    ({"response": {"status_code": 429, "body": {"error": {"code": "insufficient_quota"}}}}, "final"),
    ({"response": {"status_code": 500, "body": "oops"}}, "server"),
    ({"response": {"status_code": 404, "body": {"error": {"code": "model_not_found"}}}}, "refused"),
    ({"response": None, "error": {"code": "batch_expired", "message": "late"}}, "server"),
    ({"response": {"status_code": 200, "body": {"choices": []}}}, "reply"),
    ({}, "foreign"),
]


@pytest.mark.parametrize(("line", "kind"), LINES)
def test_errors_of_a_line_are_those_of_http(line: dict[str, Any], kind: str) -> None:
    answer = read_result(json.dumps({"custom_id": "a", **line}).encode())
    assert isinstance(answer, CallError)
    assert answer.kind == kind


def test_a_damaged_record_of_a_job_is_named_and_not_paid_over(server: FaultServer, tmp_path: Path) -> None:
    folder = tmp_path / "batches"
    folder.mkdir()
    (folder / "000001-abc.json").write_text("{")
    with pytest.raises(UserError, match=r"000001-abc\.json: not the record of a batch job"):
        asked(tmp_path, endpoint(server), range(1))


def test_a_job_that_the_provider_no_longer_knows_is_left_to_the_user(server: FaultServer, tmp_path: Path) -> None:
    journal = JobJournal(tmp_path)
    with journal.submitting():
        job = journal.begin(server.url, "m", (custom_id("a" * 32 + ":0", 1),))
    journal.write(type(job)(**{**vars(job), "batch_id": "batch_gone"}))
    journal.close()

    async def run() -> Completions:
        wire = BatchTransport(endpoint(server), server.url, tmp_path)
        try:
            return await wire.send({"messages": []}, "a" * 32 + ":0")
        finally:
            await wire.close()

    with pytest.raises(UserError, match="404"):
        asyncio.run(run())


def test_a_full_disk_stops_before_anything_is_submitted(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = len(batches(server))
    monkeypatch.setattr("dsrl.llm.batch.journal.os.fsync", full)
    with pytest.raises(StageFailed, match="could not be recorded"):
        asked(tmp_path, endpoint(server), range(1))
    assert len(batches(server)) == before


def test_finished_jobs_go_once_their_replies_are_stored(
    server: FaultServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    asked(tmp_path, endpoint(server))
    folder = tmp_path / "batches"
    assert remove_finished_jobs(folder, ReplyCache(tmp_path / "another"), sure=True) == 0
    assert remove_finished_jobs(folder, ReplyCache(tmp_path), sure=False) > 0
    assert len(list(folder.glob("*.json"))) == 1
    assert remove_finished_jobs(folder, ReplyCache(tmp_path), sure=True) > 0
    assert list(folder.glob("0*")) == []
