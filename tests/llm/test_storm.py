"""The client against the project's fault server: how many are turned away, how much of the room is used."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from dsrl.llm import Client, Endpoint
from tests.llm.running import completions, run
from tests.support.faultserver import Faults, FaultServer, serve

pytestmark = pytest.mark.e2e


def storm(server: FaultServer, folder: Path, requests: int, **fields: Any) -> int:
    """Completions that are missing after so many requests all at once."""

    async def act(client: Client) -> int:
        replies = await asyncio.gather(*[completions(1, content=str(i))(client) for i in range(requests)])
        return sum(reply.error is not None for (reply,) in replies)

    endpoint = Endpoint(**{"model": "m", "base_url": server.url, "concurrency": 64, "backoff": 0.01, **fields})
    missing: int
    missing, _ = run(endpoint, folder, act)
    return missing


def test_few_are_turned_away_and_none_is_lost(tmp_path: Path) -> None:
    with serve(Faults(latency=0.05, jitter=0.1, capacity=8, retry_after=0.2)) as server:
        assert storm(server, tmp_path, 300, max_retries=0) == 0
        stats = server.stats()
    assert (stats["completions"], stats["peak_in_service"]) == (300, 8)
    assert stats["requests"] - 300 < 90


def test_a_ceiling_per_minute_keeps_the_endpoint_from_turning_any_away(tmp_path: Path) -> None:
    with serve(Faults(requests_per_minute=600)) as server:
        assert storm(server, tmp_path, 25, requests_per_minute=600) == 0
        assert server.stats()["requests"] == 25


def test_nothing_is_lost_or_paid_twice_among_faults_of_all_kinds(tmp_path: Path) -> None:
    shares = {"429": 0.05, "500": 0.05, "503": 0.05, "drop": 0.05, "truncated": 0.03, "html": 0.03, "fewer": 0.02}
    with serve(Faults(latency=0.01, shares=shares, retry_after=0.05)) as server:
        assert storm(server, tmp_path, 300, max_retries=20) == 0
        assert set(server.paid().values()) == {1}
