"""Throughput of the fault server itself: an upper bound for what a client can be measured with."""

import asyncio
import time

import aiohttp

from tests.support.faultserver.faults import Faults
from tests.support.faultserver.serve import serve


async def measure(url: str, requests: int, connections: int, choices: int = 1) -> float:
    """Requests per second over so many connections."""
    numbers = iter(range(requests))

    async def worker(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            message = {"role": "user", "content": f"Question {number}: how many boats are there?"}
            body = {"model": "m", "messages": [message], "n": choices, "max_tokens": 64}
            async with session.post(f"{url}/chat/completions", json=body) as response:
                await response.read()

    start = time.perf_counter()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as session:
        await asyncio.gather(*[worker(session) for _ in range(min(connections, requests))])
    return requests / (time.perf_counter() - start)


def bench(requests: int, connections: int) -> str:
    """A line for n=1 and one for n=16."""
    lines = []
    with serve(Faults()) as server:
        for choices in (1, 16):
            rate = asyncio.run(measure(server.url, requests, connections, choices))
            lines.append(f"{rate:,.0f} requests/s with n={choices}, over {connections} connections")
    return "\n".join(lines)
