"""Lower bound: plain HTTP and JSON, without retries, checks or storage."""

import asyncio
import time

import aiohttp
import common


async def main() -> None:
    asked = common.arguments()
    slots = asyncio.Semaphore(asked.concurrency)

    async def row(http: aiohttp.ClientSession, number: int) -> bool:
        body = {"model": common.MODEL, "messages": common.message(common.question(number))}
        async with slots, http.post(f"{asked.url}/chat/completions", json=body) as answer:
            return answer.status == 200 and bool((await answer.json())["choices"])

    started = time.perf_counter()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=asked.concurrency)) as http:
        rows = await asyncio.gather(*(row(http, number) for number in range(asked.count)))
    common.tell(started, sum(rows))


asyncio.run(main())
