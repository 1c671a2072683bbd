"""Completions of one endpoint: out of the store where they are, over the wire where they are not, paid for once."""

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
from dsrl.llm.endpoint import Endpoint, SamplingDials
from dsrl.llm.failures import CallError
from dsrl.llm.http import Transport, Wire
from dsrl.llm.in_flight import Flight
from dsrl.llm.ledger.ledger import Ledger
from dsrl.llm.ratelimit.status import Status
from dsrl.llm.reply_cache.cache import CallsStore
from dsrl.llm.request import Call, Request
from dsrl.llm.retry import Sender
from dsrl.llm.servers import Servers
from dsrl.llm.structured.answer import Answer, Fields, structured
from dsrl.llm.structured.fallback import Formats

MOST_CHOICES = 128
"""Completions that one HTTP request may ask for, by OpenAI's own bound."""
OTHERS_SECONDS = 0.2
"""Between two looks for what another process is asking for."""
OTHERS_SAID_AFTER = 5.0
"""Seconds after which such a wait is said."""
QUIET_SECONDS = 0.5
"""Waits at the end that are no longer than this aren't worth a line."""

Outcome = TypeVar("Outcome")

log = logging.getLogger(__name__)


class Client:
    """Used inside one event loop: `async with Client(...) as client`. Neither the network nor aiohttp is touched, and
    no server started, before the first completion that the store lacks.

    Requests go out in the order of asking, repeats included. To finish what is begun before anything new was tried:
    with the few candidates that a stage has open it brings the first results half a second earlier, and the last ones
    later, because the youngest are then begun last.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        store: CallsStore,
        ledger: Ledger,
        servers: Servers | None = None,
        *,
        role: str = "teacher",
        stage: str = "",
        formats: Formats | None = None,
        images: ImageStore | None = None,
    ) -> None:
        """Calls are booked to the stage and the role. `servers` keeps what the endpoint starts beyond this client;
        without it, a started server ends with the client. `formats` keeps what the endpoint was found to refuse,
        `images` the pictures that requests refer to."""
        self.endpoint = endpoint
        self._store = store
        self._ledger = ledger
        self._key = (stage, role, endpoint.model)
        self._servers = Servers() if servers is None else servers
        self._owns_servers = servers is None
        self._sender = Sender(endpoint, ledger, self._key, self._connected, self._receive, formats or Formats())
        self._coming: dict[str, Flight] = {}
        self._numbers = itertools.count()
        self._wire: Transport | None = None
        self._images = images
        self._waited = False
        """Whether it was said that another process is waited for."""
        self._connecting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self.endpoint.check()
        self._store.refresh()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._land()
        finally:
            if self._wire is not None:
                await self._wire.close()
            self._wire = None
            if self._owns_servers:
                self._servers.close()

    async def complete(self, request: Request, count: int = 1, first: int = 0) -> list[Reply]:
        """Completions first .. first + count - 1 of the request, in order.

        What the endpoint can't bring after all repeats comes back with `error` set and is asked for again in the next
        run. Raises `UserError` for what no repeat cures: key, permission, model, quota, malformed request, wrong URL,
        an endpoint that stays down. Those who ask for the same completion at the same time share it.
        """
        call = self.endpoint.call(request)
        indices = range(first, first + count)
        replies = self._stored(call, indices)
        if missing := [i for i in indices if i not in replies]:
            replies |= await self._fetch(call, missing)
        return [replies[i] for i in indices]

    async def ask(
        self,
        messages: Iterable[Mapping[str, Any]],
        schema: type[Fields],
        index: int = 0,
        **sampling: Unpack[SamplingDials],
    ) -> Answer[Fields]:
        """Completion `index` as an object of `schema`, with one repair turn where it isn't one."""
        request = self.endpoint.request(messages, schema, **sampling)
        answer = await structured(self.complete, request, schema, index)
        if answer.failures:
            self._sender.book(repairs=int(len(answer.calls) > 1), parse_failures=Counter(answer.failures))
        return answer

    def status(self) -> Status:
        """How it is doing now; to be called from any thread."""
        status, wire = self._sender.pace.status(), self._wire
        return replace(status, batch=wire.status()) if wire is not None and wire.batch else status

    def _stored(self, call: Call, indices: Iterable[int]) -> dict[int, Reply]:
        replies = {i: reply for i in indices if (reply := self._store.get(call.digest, i)) is not None}
        if replies:
            self._ledger.reuse(self._key, replies.values(), self.endpoint.price)
        return replies

    async def _fetch(self, call: Call, indices: list[int]) -> dict[int, Reply]:
        """Joins the flights that bring some already, starts those that lack, and waits for all."""
        known = {i: flight for i in indices if (flight := self._coming.get(call.id(i))) is not None}
        new = [self._start(call, block) for block in self._blocks([i for i in indices if i not in known])]
        known |= {i: flight for flight in new for i in flight.indices}
        flights = set(known.values())
        for flight in flights:
            flight.askers += 1
        try:
            await all_done([flight.task for flight in flights])
        finally:
            for flight in flights:
                flight.leave()
        return {i: flight.replies[i] for i, flight in known.items()}

    def _start(self, call: Call, block: list[int]) -> Flight:
        flight = Flight(call, block, next(self._numbers), self._fly)
        self._coming |= {call.id(i): flight for i in block}
        flight.task.add_done_callback(lambda task: self._landed(flight, task))
        return flight

    def _landed(self, flight: Flight, task: "asyncio.Task[None]") -> None:
        for i in flight.indices:
            del self._coming[flight.call.id(i)]
        if not task.cancelled():
            task.exception()  # whoever waits gets it; if nobody does, nothing is wrong

    def _blocks(self, indices: list[int]) -> list[list[int]]:
        """Runs of neighbouring indices, each for one HTTP request."""
        most = MOST_CHOICES if self.endpoint.takes_n else 1
        runs = itertools.groupby(enumerate(indices), lambda pair: pair[1] - pair[0])
        whole_runs = [[index for _, index in run] for _, run in runs]
        return [run[start : start + most] for run in whole_runs for start in range(0, len(run), most)]

    async def _fly(self, flight: Flight) -> None:
        """One HTTP request for all; again for the rest as long as the endpoint brings fewer than it was asked for."""
        call = flight.call
        await self._claim(call)
        try:
            flight.replies |= self._stored(call, flight.indices)
            while flight.missing:
                if not flight.wanted:
                    raise asyncio.CancelledError
                await self._sender.send(flight)
        except CallError as failure:
            lost = 0 if failure.kind == "prompt" else len(flight.missing)
            self._sender.book(errors=len(flight.missing), lost=lost)
            flight.replies |= {i: Reply(text=None, error=str(failure), call=call.id(i)) for i in flight.missing}
        finally:
            self._store.free(call.digest)

    async def _claim(self, call: Call) -> None:
        """Waits while another process asks for the same; said once."""
        began = time.monotonic()
        while not self._store.claim(call.digest):
            await asyncio.sleep(OTHERS_SECONDS)
            if not self._waited and time.monotonic() - began > OTHERS_SAID_AFTER:
                self._waited = True
                log.warning(
                    "another process that shares %s is asking %s for the same replies, perhaps in a batch job: "
                    "waiting for it, so that nothing is paid twice; end it to go on here",
                    *(self._store.folder, self.endpoint.model),
                )

    def _receive(self, flight: Flight, completions: Completions) -> None:
        """Stores what came, before anybody sees it."""
        call, received = flight.call, zip(flight.block, completions.replies(), strict=False)
        replies = {i: replace(reply, call=call.id(i)) for i, reply in received}
        self._store.put(call.digest, call.identity, replies, completions.model or self.endpoint.model)
        flight.replies |= replies

    async def _connected(self) -> Transport:
        async with self._connecting:
            if self._wire is None:
                url = await asyncio.to_thread(self._servers.url, self.endpoint)
                self._wire = self._open(url)
            return self._wire

    def _open(self, url: str | None) -> Transport:
        if not self.endpoint.batch:
            return Wire(self.endpoint, url, self._images)
        from dsrl.llm.batch.transport import BatchWire

        return BatchWire(self.endpoint, url, self._store.folder / "batches", self._images)

    async def _land(self) -> None:
        """Lets what is in the air come home for `drain` seconds: it is paid for. What wasn't sent isn't."""
        flights = set(self._coming.values())
        for flight in flights:
            flight.landing = True
            flight.stop()
        tasks = [flight.task for flight in flights]
        try:
            airborne = [flight for flight in flights if flight.airborne]
            if airborne and self._wire is not None and not self._wire.batch:
                await self._wait_for(airborne)
        finally:
            for task in tasks:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait_for(self, flights: list[Flight]) -> None:
        tasks, drain = [flight.task for flight in flights], self.endpoint.drain
        _, late = await asyncio.wait(tasks, timeout=min(QUIET_SECONDS, drain))
        if late:
            log.warning("stopping: up to %g s for %d replies that are under way", drain, len(late))
            await asyncio.wait(late, timeout=drain - min(QUIET_SECONDS, drain))
            kept = sum(not flight.missing for flight in flights)
            log.warning("%d of %d came and are kept; the same command goes on from here", kept, len(flights))


async def all_done(tasks: list["asyncio.Task[None]"]) -> None:
    """Waits for all, and raises the first error as it is; being cancelled cancels none of them."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()


async def together(coroutines: Iterable[Coroutine[Any, Any, Outcome]]) -> list[Outcome]:
    """All at once; the first error cancels the others and is raised as it is, not inside a group."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
