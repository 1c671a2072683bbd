"""Completions of one endpoint: out of the store where they are, over the wire where they are not, paid for once."""

import asyncio
import itertools
import logging
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from dsrl.llm.calls import CallsStore
from dsrl.llm.endpoint import Endpoint, SamplingDials
from dsrl.llm.failures import CallError, pause, user_error
from dsrl.llm.ledger import Ledger, Spending
from dsrl.llm.limiter import Limiter
from dsrl.llm.request import Call, Request
from dsrl.llm.servers import Servers
from dsrl.llm.structured import Answer, Fields, structured
from dsrl.llm.wire import Completions, Wire
from dsrl.model import Reply

MOST_CHOICES = 128
"""Completions that one HTTP request may ask for, by OpenAI's own bound."""
TRIES_TO_CONNECT = 3
LONG_PAUSE = 60.0

Outcome = TypeVar("Outcome")

log = logging.getLogger(__name__)


class Client:
    """Used inside one event loop: `async with Client(...) as client`. Neither the network nor the SDK is touched, and
    no server started, before the first completion that the store lacks."""

    def __init__(
        self,
        endpoint: Endpoint,
        store: CallsStore,
        ledger: Ledger,
        servers: Servers | None = None,
        *,
        role: str = "teacher",
        stage: str = "",
    ) -> None:
        """Calls are booked to the stage and the role. `servers` keeps what the endpoint starts beyond this client;
        without it, a started server ends with the client."""
        self.endpoint = endpoint
        self._store = store
        self._ledger = ledger
        self._key = (stage, role, endpoint.model)
        self._servers = Servers() if servers is None else servers
        self._owns_servers = servers is None
        self._limiter = Limiter(endpoint.concurrency)
        self._coming: dict[str, asyncio.Future[Reply]] = {}
        self._wire: Wire | None = None
        self._connecting = asyncio.Lock()
        self._answered = False

    async def __aenter__(self) -> Self:
        self.endpoint.check()
        self._store.refresh()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._wire is not None:
            await self._wire.close()
        self._wire = None
        if self._owns_servers:
            self._servers.close()

    async def complete(self, request: Request, count: int = 1, first: int = 0) -> list[Reply]:
        """Completions first .. first + count - 1 of the request, in order.

        What the endpoint can't bring after all repeats comes back with `error` set and is asked for again in the next
        run. Raises `UserError` for what no repeat cures: key, permission, model, quota, malformed request, wrong URL.
        Those who ask for the same completion at the same time share it.
        """
        call = self.endpoint.call(request)
        indices = range(first, first + count)
        replies = {i: reply for i in indices if (reply := self._store.get(call.digest, i)) is not None}
        if replies:
            self._book(store_hits=len(replies))
        while missing := [i for i in indices if i not in replies]:
            others = {i: self._coming[call.id(i)] for i in missing if call.id(i) in self._coming}
            replies |= await self._fetch(call, [i for i in missing if i not in others])
            if others:
                await asyncio.wait(others.values())
            replies |= {i: coming.result() for i, coming in others.items() if not coming.cancelled()}
        return [replies[i] for i in indices]

    async def ask(
        self,
        messages: Iterable[Mapping[str, str]],
        schema: type[Fields],
        index: int = 0,
        **sampling: Unpack[SamplingDials],
    ) -> Answer[Fields]:
        """Completion `index` as an object of `schema`, with one repair turn where it isn't one."""
        request = self.endpoint.request(messages, schema, **sampling)
        answer = await structured(self.complete, request, schema, index)
        if len(answer.calls) > 1:
            self._book(repairs=1)
        return answer

    async def _fetch(self, call: Call, indices: list[int]) -> dict[int, Reply]:
        """Asks the endpoint, and lets others who want the same indices wait for the outcome."""
        coming = {i: asyncio.get_running_loop().create_future() for i in indices}
        self._coming |= {call.id(i): future for i, future in coming.items()}
        try:
            blocks = self._blocks(indices)
            replies = dict(itertools.chain(*await together(self._block(call, block) for block in blocks)))
            for i, future in coming.items():
                future.set_result(replies[i])
        finally:
            for i, future in coming.items():
                future.cancel()
                del self._coming[call.id(i)]
        return replies

    def _blocks(self, indices: list[int]) -> list[list[int]]:
        """Runs of neighbouring indices, each for one HTTP request."""
        most = MOST_CHOICES if self.endpoint.takes_n else 1
        runs = itertools.groupby(enumerate(indices), lambda pair: pair[1] - pair[0])
        whole_runs = [[index for _, index in run] for _, run in runs]
        return [run[start : start + most] for run in whole_runs for start in range(0, len(run), most)]

    async def _block(self, call: Call, indices: list[int]) -> list[tuple[int, Reply]]:
        """One HTTP request for all; again for the rest as long as the endpoint brings fewer than it was asked for."""
        replies: dict[int, Reply] = {}
        while rest := indices[len(replies) :]:
            try:
                completions = await self._send(call, rest[0], len(rest))
            except CallError as failure:
                self._book(errors=len(rest))
                replies |= {i: Reply(text=None, error=str(failure), call=call.id(i)) for i in rest}
            else:
                replies |= self._keep(call, rest, completions)
        return list(replies.items())

    def _keep(self, call: Call, indices: list[int], completions: Completions) -> dict[int, Reply]:
        """Stores what came, before anybody sees it."""
        received = zip(indices, completions.replies(), strict=False)
        replies = {i: replace(reply, call=call.id(i)) for i, reply in received}
        self._store.put(call.digest, call.identity, replies, completions.model or self.endpoint.model)
        return replies

    async def _send(self, call: Call, first: int, count: int) -> Completions:
        """Repeats one HTTP request until it brings completions; raises the last `CallError`."""
        body = dict(call.body)
        if count > 1:
            body["n"] = count
        if self.endpoint.takes_seed:
            body["seed"] = call.seed(first)
        wire = await self._connected()
        for attempt in itertools.count():
            try:
                return await self._try(wire, body, attempt)
            except CallError as failure:
                if failure.kind == "final" or self._unreachable(failure, attempt):
                    raise user_error(failure, self.endpoint, wire.url) from failure
                if failure.kind == "prompt" or attempt >= self.endpoint.max_retries:
                    raise
                await self._wait(failure, attempt)
        raise AssertionError("unreachable")

    async def _try(self, wire: Wire, body: dict[str, Any], attempt: int) -> Completions:
        """One HTTP request in a slot of its own, booked whatever comes of it."""
        async with self._limiter.slot() as taken:
            self._ledger.check_budget(self._key, self._limiter.in_flight)
            try:
                completions = await wire.send(body)
            except CallError as failure:
                self._answered |= failure.status is not None
                if failure.kind == "throttled":
                    self._limiter.throttled(taken, pause(attempt, self.endpoint.backoff, failure.retry_after))
                self._book(requests=1, retries=min(attempt, 1))
                raise
        self._answered = True
        self._limiter.succeeded()
        self._book_paid(completions, body.get("n", 1), retries=min(attempt, 1))
        return completions

    def _unreachable(self, failure: CallError, attempt: int) -> bool:
        """Whether to give up on an address that never answered."""
        return failure.kind == "unreachable" and not self._answered and attempt + 1 >= TRIES_TO_CONNECT

    async def _wait(self, failure: CallError, attempt: int) -> None:
        seconds = pause(attempt, self.endpoint.backoff, failure.retry_after)
        if seconds > LONG_PAUSE:
            log.warning("%s asks to wait %.0f s: %s", self.endpoint.model, seconds, failure)
        await asyncio.sleep(seconds)

    async def _connected(self) -> Wire:
        async with self._connecting:
            if self._wire is None:
                self._wire = Wire(self.endpoint, await asyncio.to_thread(self._servers.url, self.endpoint))
            return self._wire

    def _book_paid(self, completions: Completions, asked: int, retries: int) -> None:
        price, tokens = self.endpoint.price, completions.usage
        usage = tokens.usage() if tokens else None
        self._book(
            requests=1,
            retries=retries,
            completions=min(len(completions.choices), asked),
            input_tokens=usage.input_tokens if usage else 0,
            cached_tokens=usage.cached_tokens if usage else 0,
            output_tokens=usage.output_tokens if usage else 0,
            usd=price.cost(usage) if price and usage else None,
        )

    def _book(self, usd: float | None = 0.0, **counts: int) -> None:
        """Adds to the ledger; dollars stay unknown where the price is."""
        self._ledger.add(self._key, Spending(**counts, usd=None if self.endpoint.price is None else usd))


async def together(coroutines: Iterable[Coroutine[Any, Any, Outcome]]) -> list[Outcome]:
    """All at once; the first error cancels the others and is raised as it is, not inside a group."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
