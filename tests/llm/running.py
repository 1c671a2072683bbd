"""A client in a run of its own, and what it should get from the scripted server."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from dsrl.data.model import Reply
from dsrl.llm import Client, Endpoint, Ledger, Price, ReplyCache, Spending
from tests.llm.server import Script

PRICE = Price(input=1.0, output=2.0, date="2026-11-20")
HELLO = [{"role": "user", "content": "hello"}]
KEY = ("votes", "teacher", "m")


def endpoint(script: Script, **fields: Any) -> Endpoint:
    return Endpoint(
        **{"model": "m", "base_url": script.url, "backoff": 0.0, "max_retries": 3, "price": PRICE, **fields}
    )


def run(described: Endpoint, folder: Path, act: Callable[[Client], Coroutine[Any, Any, Any]]) -> tuple[Any, Spending]:
    """What `act` returns in a run of its own on the calls in `folder`, and what it spent."""
    ledger = Ledger()

    async def inside() -> Any:
        async with Client(described, ReplyCache(folder), ledger, role="teacher", stage="votes") as client:
            return await act(client)

    return asyncio.run(inside()), ledger.rows().get(KEY, Spending())


def completions(
    count: int, first: int = 0, content: str = "hello"
) -> Callable[[Client], Coroutine[Any, Any, list[Reply]]]:
    def act(client: Client) -> Coroutine[Any, Any, list[Reply]]:
        return client.complete(client.endpoint.request([{"role": "user", "content": content}]), count, first)

    return act


def expected(described: Endpoint, indices: range, content: str = "hello") -> list[str]:
    call = described.call(described.request([{"role": "user", "content": content}]))
    return [f"{content} / {call.seed(i)}" for i in indices]


def texts(replies: list[Reply]) -> list[str | None]:
    return [reply.text for reply in replies]
