"""What is under way when a run stops: it is paid for, so it comes home and is kept; what wasn't sent isn't."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dsrl.core.errors import UserError
from dsrl.data.model import Reply
from dsrl.llm import Client, Ledger, ReplyCache
from dsrl.llm.retry import InFlightRequest
from tests.llm.running import HELLO, completions, endpoint, expected, run, texts
from tests.llm.server import HANG, ONE_ONLY, Script, error, serve


async def until(script: Script, bodies: int) -> None:
    while len(script.bodies) < bodies:  # noqa: ASYNC110
        await asyncio.sleep(0.005)


def test_requests_in_the_air_come_home_and_those_that_queue_are_never_sent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(latency=0.8) as script:

        async def act(client: Client) -> None:
            for i in range(10):
                asyncio.create_task(completions(2, content=str(i))(client))  # noqa: RUF006
            await until(script, 2)

        described = endpoint(script, concurrency=2)
        _, spent = run(described, tmp_path, act)
        assert (len(script.bodies), spent.requests, spent.completions, spent.errors) == (2, 2, 4, 0)
        assert "2 of 2 arrived and are kept" in caplog.text
        _, spent = run(described, tmp_path, completions(2, content="0"))
        assert (spent.requests, spent.store_hits) == (0, 2)


def test_an_error_elsewhere_lets_them_come_home(tmp_path: Path) -> None:
    with serve(latency=0.1) as script:

        async def act(client: Client) -> None:
            asked = asyncio.create_task(completions(1)(client))
            await until(script, 1)
            asked.cancel()
            raise UserError("the budget is spent")

        with pytest.raises(UserError, match="budget"):
            run(endpoint(script), tmp_path, act)
        assert texts(run(endpoint(script), tmp_path, completions(1))[0]) == expected(endpoint(script), range(1))
        assert len(script.bodies) == 1


def test_those_that_hang_are_left_after_the_drain(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serve(HANG) as script:

        async def act(client: Client) -> None:
            asyncio.create_task(completions(1)(client))  # noqa: RUF006
            await until(script, 1)

        _, spent = run(endpoint(script, drain=0.1), tmp_path, act)
    assert (spent.requests, spent.completions, spent.errors) == (1, 0, 0)
    assert "0 of 1 arrived" in caplog.text


@pytest.mark.parametrize("step", [error(500), error(429, retry_after_ms="1"), ONE_ONLY], ids=["500", "429", "fewer"])
def test_nothing_is_repeated_while_the_client_closes(tmp_path: Path, step: object) -> None:
    with serve(step, latency=0.1) as script:

        async def act(client: Client) -> None:
            asyncio.create_task(completions(2)(client))  # noqa: RUF006
            await until(script, 1)

        run(endpoint(script), tmp_path, act)
        assert len(script.bodies) == 1


def test_a_failed_request_that_nobody_waits_for_any_more_is_not_repeated(tmp_path: Path) -> None:
    with serve(error(500), latency=0.05) as script:

        async def act(client: Client) -> None:
            asked = asyncio.create_task(completions(1)(client))
            await until(script, 1)
            asked.cancel()
            await asyncio.sleep(0.2)

        run(endpoint(script), tmp_path, act)
        assert len(script.bodies) == 1


def test_a_reply_that_comes_after_its_asker_has_gone_serves_the_next_one(tmp_path: Path) -> None:
    with serve(latency=0.1) as script:

        async def act(client: Client) -> list[Reply]:
            first = asyncio.create_task(client.complete(client.endpoint.request(HELLO)))
            await until(script, 1)
            first.cancel()
            await asyncio.sleep(0)
            return await client.complete(client.endpoint.request(HELLO))

        replies, spent = run(endpoint(script), tmp_path, act)
        assert texts(replies) == expected(endpoint(script), range(1))
        assert (len(script.bodies), spent.completions) == (1, 1)


def test_what_others_have_stored_meanwhile_leaves_gaps_that_are_filled(tmp_path: Path) -> None:
    async def fly(flight: InFlightRequest) -> None: ...

    async def inside() -> None:
        with serve() as script:
            described = endpoint(script)
            async with Client(described, ReplyCache(tmp_path), Ledger()) as client:
                await client.complete(described.request(HELLO), 1, first=2)
                call = described.call(described.request(HELLO))
                flight = InFlightRequest(call, [0, 1, 2, 3, 4], 0, fly)
                flight.replies |= client._cached(call, flight.indices)
                assert (flight.missing, flight.block) == ([0, 1, 3, 4], [0, 1])
                await flight.task
            assert [body.get("n", 1) for body in script.bodies] == [1]

    asyncio.run(inside())


CHILD = """
import asyncio, logging, sys
from pathlib import Path
from dsrl.llm import ReplyCache, Client, Endpoint, Ledger
logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(message)s")
async def main():
    endpoint = Endpoint(model="m", base_url=sys.argv[1], drain=60.0)
    async with Client(endpoint, ReplyCache(Path(sys.argv[2])), Ledger()) as client:
        await client.complete(endpoint.request([{"role": "user", "content": "hello"}]))
asyncio.run(main())
"""


def test_a_second_interrupt_waits_for_nothing(tmp_path: Path) -> None:
    with serve(HANG) as script:
        command = [sys.executable, "-u", "-c", CHILD, script.url, str(tmp_path)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while not script.bodies:
            time.sleep(0.01)
        assert child.stdout is not None
        os.kill(child.pid, signal.SIGINT)
        assert child.stdout.readline().startswith("stopping: waiting up to 60 s for 1 replies")
        os.kill(child.pid, signal.SIGINT)
        _, errors = child.communicate(timeout=30)
        assert errors.strip().endswith("KeyboardInterrupt")
