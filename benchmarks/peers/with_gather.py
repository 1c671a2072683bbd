"""Baseline: one asyncio task per row, a semaphore, the OpenAI SDK, no storage."""

import asyncio
import time

import common
from openai import AsyncOpenAI, OpenAIError


class Client:
    def __init__(self, asked) -> None:
        self.api = AsyncOpenAI(
            api_key=common.KEY, base_url=asked.url, max_retries=common.RETRIES, timeout=common.TIMEOUT
        )
        self.slots = asyncio.Semaphore(asked.concurrency)

    async def ask(self, text: str, n: int = 1) -> list[str]:
        async with self.slots:
            answer = await self.api.chat.completions.create(
                model=common.MODEL, messages=common.message(text), n=n, temperature=common.TEMPERATURE
            )
        return [choice.message.content for choice in answer.choices]

    async def row(self, number: int, work: str) -> bool:
        try:
            texts = await self.ask(common.question(number))
            if work == "chain":
                texts = await self.ask(common.vote(texts[0]), common.VOTES)
        except OpenAIError:
            return False
        return bool(texts)


async def main() -> None:
    asked = common.arguments()
    started = time.perf_counter()
    client = Client(asked)
    rows = await asyncio.gather(*(client.row(number, asked.work) for number in range(asked.count)))
    common.tell(started, sum(rows))


asyncio.run(main())
