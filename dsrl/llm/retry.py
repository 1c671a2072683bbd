"""HTTP requests of one client: each in its turn, booked whatever becomes of it, and again where that may help."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from dsrl.core.errors import UserError
from dsrl.data.images.prompt import content_length
from dsrl.data.model import Usage
from dsrl.llm.completions import Completions
from dsrl.llm.context_refusals import Refusals
from dsrl.llm.endpoint import Endpoint
from dsrl.llm.failures import CallError, hanging_error, pause, user_error
from dsrl.llm.http import Transport
from dsrl.llm.in_flight import Flight
from dsrl.llm.ledger.ledger import Key, Ledger, Reservation, Size, Spending
from dsrl.llm.ratelimit.breaker import DIFFERENT
from dsrl.llm.ratelimit.controller import Pace
from dsrl.llm.ratelimit.limiter import Slot
from dsrl.llm.structured.fallback import Formats

TRIES_TO_CONNECT = 3
TRIES_TO_UNDERSTAND = 3
"""Answers of another kind, before the first completion, after which the address is taken to be wrong."""


@dataclass
class Tries:
    """What became of one flight's requests so far."""

    body: dict[str, Any] = field(default_factory=dict)
    """The one sent last."""
    sent: int = 0
    own: int = 0
    """Failures of the request itself, while the endpoint was up."""
    turned_away: int = 0
    late: int = 0
    """Time-outs."""


class Sender:
    """What the endpoint brings goes to `receive` before anything else can happen."""

    def __init__(
        self,
        endpoint: Endpoint,
        ledger: Ledger,
        key: Key,
        connect: Callable[[], Awaitable[Transport]],
        receive: Callable[[Flight, Completions], None],
        formats: Formats,
    ) -> None:
        self._endpoint, self._ledger, self._key = endpoint, ledger, key
        self._connect, self._receive, self._formats = connect, receive, formats
        self.pace = Pace(endpoint)
        self._refusals = Refusals(endpoint)
        self._busy = self._foreign = 0
        self._late: set[str] = set()
        """Calls that ran into a time-out before anything came."""
        self._answered = self._completed = False
        self._over: UserError | None = None
        """What ended the run: nothing more is sent after it."""

    async def send(self, flight: Flight) -> None:
        """Brings what the flight lacks, or as many of them as the endpoint gives at once.

        Raises `CallError` where nothing came after all repeats, `UserError` for what no repeat cures.
        """
        self._refusals.check(flight.call)
        self._busy += 1
        try:
            await self._repeat(await self._connect(), flight)
        except UserError as error:
            self._over = error
            raise
        finally:
            self._busy -= 1
            if not self._busy:
                self._over = None
                self.pace.rest()

    async def _repeat(self, wire: Transport, flight: Flight) -> None:
        tries = Tries()
        while True:
            try:
                return await self._try(wire, flight, tries)
            except CallError as failure:
                seconds = 0.0
                if not self._formats.refused(self._endpoint, tries.body, failure):
                    self._check(wire, flight, failure, tries)
                    seconds = self._seconds(failure, tries)
            if not flight.wanted:
                raise asyncio.CancelledError
            await asyncio.sleep(seconds)

    async def _try(self, wire: Transport, flight: Flight, tries: Tries) -> None:
        """One HTTP request in a slot of its own."""
        body = tries.body = self._body(flight)
        size = _size(body, self._endpoint)
        usage: Usage | None = None
        slot = await self.pace.slot(flight.number, size)
        try:
            if self._over is not None:
                raise self._over
            async with self._ledger.reserve(self._key, size, self._endpoint.price, wire.batch) as reservation:
                completions = await self._exchange(wire, flight, slot, tries)
                self._answered = self._completed = True
                self.pace.succeeded(slot)
                usage = completions.usage.usage() if completions.usage else Usage()
                self._book_paid(wire, reservation, flight, completions, tries)
                self._receive(flight, completions)
        finally:
            self.pace.release(slot, size, usage)

    async def _exchange(self, wire: Transport, flight: Flight, slot: Slot, tries: Tries) -> Completions:
        """The moment in which a request is paid for: it is booked even if it is broken off. Not so in a batch: its job
        goes on, is billed later, and is booked by the run that fetches it."""
        counts = {"requests": 1, "retries": min(tries.sent, 1), "batch_requests": int(wire.batch)}
        tries.sent += 1
        flight.airborne = True
        self.pace.sent()
        try:
            return await wire.send(tries.body, flight.call.id(flight.block[0]))
        except CallError as failure:
            self.book(**counts, throttled=int(failure.kind == "throttled"))
            if not wire.batch:
                self.pace.failed(slot, flight.call.digest, failure, tries.turned_away)
            raise
        except asyncio.CancelledError:
            if not wire.batch:
                self.book(**counts)
            raise
        finally:
            flight.airborne = False

    def _check(self, wire: Transport, flight: Flight, failure: CallError, tries: Tries) -> None:
        """Raises what a repeat can't help, or has not helped."""
        self._answered |= failure.status is not None
        self._check_time(wire, flight, failure, tries)
        self._foreign += failure.kind == "foreign"
        tries.turned_away += failure.kind == "throttled"
        tries.own += failure.kind != "throttled" and not self.pace.is_down
        nobody = failure.kind == "unreachable" and not self._answered and tries.sent >= TRIES_TO_CONNECT
        stranger = failure.kind == "foreign" and not self._completed and self._foreign >= TRIES_TO_UNDERSTAND
        if failure.kind == "final" or nobody or stranger:
            raise user_error(failure, self._endpoint, wire.url) from failure
        if failure.kind == "prompt":
            self._refusals.add(flight.call, failure, any_taken=self._completed)
        unknown = failure.kind == "foreign" and not self._completed  # soon nobody's, or everybody's
        spent = tries.own > self._endpoint.max_retries and not unknown
        if failure.kind == "prompt" or wire.batch or spent:
            raise failure

    def _check_time(self, wire: Transport, flight: Flight, failure: CallError, tries: Tries) -> None:
        """Where nothing but time-outs ever came, more of them help nobody, and each may be billed."""
        if failure.kind != "timeout" or self._answered:
            return
        tries.late += 1
        self._late.add(flight.call.digest)
        if tries.late > self._endpoint.max_retries and len(self._late) >= min(DIFFERENT, self._busy):
            raise hanging_error(failure, self._endpoint, wire.url) from failure

    def _seconds(self, failure: CallError, tries: Tries) -> float:
        """Before the next try. While the endpoint is down the pace says who knocks, and nobody pauses by himself."""
        if failure.kind == "throttled":
            return pause(tries.turned_away - 1, self._endpoint, failure)
        return 0.0 if self.pace.is_down else pause(tries.own - 1, self._endpoint, failure)

    def _body(self, flight: Flight) -> dict[str, Any]:
        call, mode = flight.call, self._formats.mode(self._endpoint)
        body = dict(call.body if mode == self._endpoint.json_mode else call.body_in(mode))
        block = flight.block
        if len(block) > 1:
            body["n"] = len(block)
        if self._endpoint.takes_seed:
            body["seed"] = call.seed(block[0])
        return body

    def _book_paid(
        self, wire: Transport, reservation: Reservation, flight: Flight, completions: Completions, tries: Tries
    ) -> None:
        price, billed = self._endpoint.price, completions.billed
        usage = completions.usage.usage() if completions.usage else Usage()
        came = flight.block[: len(completions.choices)]
        spending = Spending(
            requests=1,
            retries=int(tries.sent > 1),
            batch_requests=int(wire.batch),
            completions=len(came),
            input_tokens=usage.input_tokens,
            cached_tokens=usage.cached_tokens,
            output_tokens=usage.output_tokens,
            usd=price.cost(billed, wire.batch) if price and billed else None,
        )
        reservation.settle(spending, tuple(flight.call.id(i) for i in came))

    def book(self, **counts: Any) -> None:
        """Adds to the ledger; dollars stay unknown where the price is."""
        self._ledger.add(self._key, Spending(**counts, usd=None if self._endpoint.price is None else 0.0))


def _size(body: dict[str, Any], endpoint: Endpoint) -> Size:
    characters = sum(content_length(message.get("content")) for message in body["messages"])
    return Size(characters, body.get("n", 1), body.get(endpoint.token_limit) or endpoint.max_tokens)
