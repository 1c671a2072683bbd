"""Several processes on one store, through the whole client."""

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from dsrl.llm import Client, Endpoint, Ledger, ReplyCache
from tests.support.faultserver import Faults, serve

FORK = multiprocessing.get_context("fork")


def ask(url: str, folder: Path, questions: range) -> list[list[str | None]]:
    teacher = Endpoint(model="m", base_url=url, concurrency=8)

    async def run() -> list[list[str | None]]:
        async with Client(teacher, ReplyCache(folder), Ledger()) as client:
            requests = [teacher.request([{"role": "user", "content": f"question {i}?"}]) for i in questions]
            replies = await asyncio.gather(*[client.complete(request, 4) for request in requests])
        return [[reply.text for reply in four] for four in replies]

    return asyncio.run(run())


def test_processes_that_ask_for_the_same_at_the_same_time_pay_once(tmp_path: Path) -> None:
    with serve(Faults(latency=0.05)) as server:
        askers = [FORK.Process(target=ask, args=(server.url, tmp_path, range(i, 30))) for i in range(3)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
        assert [asker.exitcode for asker in askers] == [0, 0, 0]
        assert len(server.log()) == 30
        assert max(server.paid().values()) == 1
        assert len(ReplyCache(tmp_path)) == 120


def test_a_wait_for_another_process_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dsrl.llm.client.LOCK_WARN_SECONDS", 0.3)
    with serve(Faults(script=("hang",) * 4)) as server:
        first = FORK.Process(target=ask, args=(server.url, tmp_path, range(4)))
        first.start()
        while len(server.log()) < 4:
            time.sleep(0.01)
        end = threading.Timer(1.5, first.kill)
        end.start()
        assert all(texts for texts in ask(server.url, tmp_path, range(4)))
        end.join()
        first.join()
    (said,) = [message for message in caplog.messages if "stop it to continue" in message]
    assert str(tmp_path) in said


def test_what_a_killed_process_was_asking_for_is_asked_by_the_other(tmp_path: Path) -> None:
    with serve(Faults(script=("hang",))) as server:
        killed = FORK.Process(target=ask, args=(server.url, tmp_path, range(1)))
        killed.start()
        while not server.log():
            time.sleep(0.01)
        other = FORK.Process(target=ask, args=(server.url, tmp_path, range(1)))
        other.start()
        assert killed.pid is not None
        os.kill(killed.pid, signal.SIGKILL)
        for asker in (killed, other):
            asker.join()
        assert other.exitcode == 0
        assert len(server.log()) == 2
        assert len(ReplyCache(tmp_path)) == 4
