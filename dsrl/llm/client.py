"""Completions of one endpoint: from the reply cache if they are there, else over the network, paid for once."""

import asyncio
import itertools
import logging
import time
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from dsrl.data.images import ImageStore
from dsrl.data.model import Reply
from dsrl.llm.completions import Completions
from dsrl.llm.endpoint import Endpoint, SamplingOptions
from dsrl.llm.failures import CallError
from dsrl.llm.http import HttpTransport, Transport
from dsrl.llm.ledger.ledger import Ledger
from dsrl.llm.ratelimit.controller import ClientStatus
from dsrl.llm.reply_cache.cache import ReplyCache
from dsrl.llm.request import Call, Request
from dsrl.llm.retry import InFlightRequest, RetryingSender
from dsrl.llm.servers import Servers
from dsrl.llm.structured.answer import Answer, Fields, request_object
from dsrl.llm.structured.schema import JsonModeFallback

MAX_CHOICES = 128
"""OpenAI's limit on the completions of one HTTP request."""
LOCK_POLL_SECONDS = 0.2
LOCK_WARN_SECONDS = 5.0
"""Seconds of waiting for another process after which a warning is logged."""
SILENT_DRAIN_SECONDS = 0.5
"""A shorter wait for requests in flight is not logged."""

Outcome = TypeVar("Outcome")

log = logging.getLogger(__name__)


class Client:
    """Use it inside one event loop: `async with Client(...) as client`.

    The network is not touched, aiohttp not imported and no server started before the first completion that is not
    cached. Requests are sent in the order in which they are made, retries included. We measured sending retries and
    second requests of a candidate first: with the few candidates that a stage has in flight, the first results came
    half a second earlier and the last ones later.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        cache: ReplyCache,
        ledger: Ledger,
        servers: Servers | None = None,
        *,
        role: str = "teacher",
        stage: str = "",
        json_modes: JsonModeFallback | None = None,
        images: ImageStore | None = None,
    ) -> None:
        """Calls are booked under stage and role. `servers` keeps a server of the endpoint running beyond this client;
        without it, the server stops with the client. `json_modes` remembers refused modes across clients, `images`
        holds the images that requests refer to."""
        self.endpoint = endpoint
        self._cache = cache
        self._ledger = ledger
        self._key = (stage, role, endpoint.model)
        self._servers = Servers() if servers is None else servers
        self._owns_servers = servers is None
        self._sender = RetryingSender(
            endpoint, ledger, self._key, self._connect, self._receive, json_modes or JsonModeFallback()
        )
        self._in_flight: dict[str, InFlightRequest] = {}
        self._numbers = itertools.count()
        self._transport: Transport | None = None
        self._images = images
        self._lock_warned = False
        self._connecting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self.endpoint.check()
        self._cache.refresh()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._drain()
        finally:
            if self._transport is not None:
                await self._transport.close()
            self._transport = None
            if self._owns_servers:
                self._servers.close()

    async def complete(self, request: Request, count: int = 1, first: int = 0) -> list[Reply]:
        """Completions `first` to `first + count - 1` of the request, in order.

        A completion that the endpoint does not return after all retries comes back with `error` set; the next run
        requests it again. Callers that need the same completion at the same time share one request. Raises
        `UserError` for what no retry can cure: key, permission, model, quota, malformed request, wrong URL, an
        endpoint that stays down.
        """
        call = self.endpoint.call(request)
        indices = range(first, first + count)
        replies = self._cached(call, indices)
        if missing := [i for i in indices if i not in replies]:
            replies |= await self._fetch(call, missing)
        return [replies[i] for i in indices]

    async def ask(
        self,
        messages: Iterable[Mapping[str, Any]],
        schema: type[Fields],
        index: int = 0,
        **sampling: Unpack[SamplingOptions],
    ) -> Answer[Fields]:
        """Completion `index` as an object of `schema`; if it is not one, the model gets one repair turn."""
        request = self.endpoint.request(messages, schema, **sampling)
        answer = await request_object(self.complete, request, schema, index)
        if answer.failures:
            self._sender.book(repairs=int(len(answer.calls) > 1), parse_failures=Counter(answer.failures))
        return answer

    def status(self) -> ClientStatus:
        """The current state, for progress displays. Safe from any thread."""
        status, transport = self._sender.controller.status(), self._transport
        return replace(status, batch=transport.status()) if transport is not None and transport.batch else status

    def _cached(self, call: Call, indices: Iterable[int]) -> dict[int, Reply]:
        replies = {i: reply for i in indices if (reply := self._cache.get(call.digest, i)) is not None}
        if replies:
            self._sender.refusals.accepted(call)
            self._ledger.reuse(self._key, replies.values(), self.endpoint.price)
        return replies

    async def _fetch(self, call: Call, indices: list[int]) -> dict[int, Reply]:
        """Join the requests in flight that bring some of the completions, start new ones for the rest, await all."""
        known = {i: request for i in indices if (request := self._in_flight.get(call.id(i))) is not None}
        new = [self._start(call, block) for block in self._blocks([i for i in indices if i not in known])]
        known |= {i: request for request in new for i in request.indices}
        requests = set(known.values())
        for request in requests:
            request.waiters += 1
        try:
            await wait_all([request.task for request in requests])
        finally:
            for request in requests:
                request.leave()
        return {i: request.replies[i] for i, request in known.items()}

    def _start(self, call: Call, block: list[int]) -> InFlightRequest:
        def done(task: "asyncio.Task[None]") -> None:
            for i in request.indices:
                del self._in_flight[request.call.id(i)]
            if not task.cancelled():
                task.exception()  # the waiters raise it; without waiters it must not be logged as unretrieved

        request = InFlightRequest(call, block, next(self._numbers), self._run)
        self._in_flight |= {call.id(i): request for i in block}
        request.task.add_done_callback(done)
        return request

    def _blocks(self, indices: list[int]) -> list[list[int]]:
        """Runs of consecutive indices, each for one HTTP request."""
        longest = MAX_CHOICES if self.endpoint.takes_n else 1
        groups = itertools.groupby(enumerate(indices), lambda pair: pair[1] - pair[0])
        runs = [[index for _, index in group] for _, group in groups]
        return [run[start : start + longest] for run in runs for start in range(0, len(run), longest)]

    async def _run(self, request: InFlightRequest) -> None:
        """Send HTTP requests until all completions are there: an endpoint may return fewer than it was asked for."""
        call = request.call
        await self._lock(call)
        try:
            request.replies |= self._cached(call, request.indices)
            while request.missing:
                if not request.wanted:
                    raise asyncio.CancelledError
                await self._sender.send(request)
        except CallError as failure:
            lost = 0 if failure.kind == "prompt" else len(request.missing)
            self._sender.book(errors=len(request.missing), lost=lost)
            request.replies |= {i: Reply(text=None, error=str(failure), call=call.id(i)) for i in request.missing}
        finally:
            self._cache.unlock(call.digest)

    async def _lock(self, call: Call) -> None:
        """Wait while another process fetches completions of the same call."""
        began = time.monotonic()
        while not self._cache.try_lock(call.digest):
            await asyncio.sleep(LOCK_POLL_SECONDS)
            if not self._lock_warned and time.monotonic() - began > LOCK_WARN_SECONDS:
                self._lock_warned = True
                log.warning(
                    "another process that shares %s is requesting the same replies of %s, perhaps in a batch job: "
                    "waiting for it, so that nothing is paid twice; stop it to continue here",
                    *(self._cache.folder, self.endpoint.model),
                )

    def _receive(self, request: InFlightRequest, completions: Completions) -> None:
        """Store the completions before any caller sees them."""
        call, received = request.call, zip(request.block, completions.replies(), strict=False)
        replies = {i: replace(reply, call=call.id(i)) for i, reply in received}
        self._cache.put(call.digest, call.identity, replies, completions.model or self.endpoint.model)
        request.replies |= replies

    async def _connect(self) -> Transport:
        async with self._connecting:
            if self._transport is None:
                url = await asyncio.to_thread(self._servers.url, self.endpoint)
                if self.endpoint.batch:
                    from dsrl.llm.batch.transport import BatchTransport

                    folder = self._cache.folder / "batches"
                    self._transport = BatchTransport(self.endpoint, url, folder, self._images)
                else:
                    self._transport = HttpTransport(self.endpoint, url, self._images)
            return self._transport

    async def _drain(self) -> None:
        """Wait up to `drain` seconds for requests that were sent, which are paid for; cancel the others."""
        requests = set(self._in_flight.values())
        for request in requests:
            request.closing = True
            request.cancel_unsent()
        tasks = [request.task for request in requests]
        try:
            sent = [request for request in requests if request.sent]
            if sent and self._transport is not None and not self._transport.batch:
                await self._wait_for(sent)
        finally:
            for task in tasks:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait_for(self, requests: list[InFlightRequest]) -> None:
        drain = self.endpoint.drain
        _, open_tasks = await asyncio.wait(
            [request.task for request in requests], timeout=min(SILENT_DRAIN_SECONDS, drain)
        )
        if open_tasks:
            log.warning("stopping: waiting up to %g s for %d replies in flight", drain, len(open_tasks))
            await asyncio.wait(open_tasks, timeout=drain - min(SILENT_DRAIN_SECONDS, drain))
            kept = sum(not request.missing for request in requests)
            log.warning("%d of %d arrived and are kept; the same command resumes here", kept, len(requests))


async def wait_all(tasks: list["asyncio.Task[None]"]) -> None:
    """Wait for all tasks and raise the first error unchanged. Cancelling the wait cancels none of them."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()


async def gather_or_cancel(coroutines: Iterable[Coroutine[Any, Any, Outcome]]) -> list[Outcome]:
    """Run all at once; the first error cancels the others and is raised unchanged, not inside a group."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
