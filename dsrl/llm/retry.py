"""Send requests in flight with rate limits, bookkeeping and retries."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from dsrl.core.errors import UserError
from dsrl.data.images.prompt import content_length
from dsrl.data.model import Reply, Usage
from dsrl.llm.completions import Completions
from dsrl.llm.endpoint import Endpoint
from dsrl.llm.failures import CallError, all_timed_out_error, final_error, retry_delay
from dsrl.llm.http import Transport
from dsrl.llm.ledger.budget import Reservation
from dsrl.llm.ledger.ledger import Ledger
from dsrl.llm.ledger.spending import Key, RequestSize, Spending
from dsrl.llm.ratelimit.controller import MIN_DISTINCT, RateController
from dsrl.llm.ratelimit.limiter import Slot
from dsrl.llm.refusals import Refusals
from dsrl.llm.request import Call
from dsrl.llm.structured.schema import JsonModeFallback

CONNECT_ATTEMPTS = 3
FOREIGN_ATTEMPTS = 3
"""Answers that are not chat completions, before the first completion, after which the URL counts as wrong."""
MAX_UNUSABLE = 2
"""Retries of a request whose replies are billed but cannot be used: a seeded server would send the same again."""


class InFlightRequest:
    """Consecutive completions of one call, fetched in one HTTP request if the endpoint returns them all.

    A request that was sent is paid for, so it is awaited even if no caller waits any more. One that is still queued,
    or waiting before a retry, is cancelled with its last caller.
    """

    def __init__(
        self,
        call: Call,
        indices: list[int],
        number: int,
        run: Callable[["InFlightRequest"], Coroutine[Any, Any, None]],
    ) -> None:
        """`run` fills `replies`. Requests with smaller numbers go first."""
        self.call, self.indices, self.number = call, indices, number
        self.replies: dict[int, Reply] = {}
        self.waiters = 0
        self.sent = False
        """Whether an HTTP request for it is open now."""
        self.closing = False
        """The client is closing: nothing more is sent."""
        self.task = asyncio.ensure_future(run(self))

    @property
    def missing(self) -> list[int]:
        return [i for i in self.indices if i not in self.replies]

    @property
    def block(self) -> list[int]:
        """Indices of the next HTTP request: the first run of consecutive missing ones."""
        missing = self.missing
        return [index for place, index in enumerate(missing) if index == missing[0] + place]

    @property
    def wanted(self) -> bool:
        return self.waiters > 0 and not self.closing

    def leave(self) -> None:
        """Remove one waiter."""
        self.waiters -= 1
        if not self.waiters:
            self.cancel_unsent()

    def cancel_unsent(self) -> None:
        if not self.sent:
            self.task.cancel()


@dataclass
class Attempts:
    """What happened so far to the HTTP requests of one request in flight."""

    body: dict[str, Any] = field(default_factory=dict)
    """The body sent last."""
    sent: int = 0
    failed: int = 0
    """Failures other than throttling, while the endpoint was up."""
    throttled: int = 0
    timed_out: int = 0
    unusable: int = 0
    """Replies that are billed but cannot be used."""


class RetryingSender:
    """Sends the HTTP requests of one client. Completions are passed to `receive` before anything else happens."""

    def __init__(
        self,
        endpoint: Endpoint,
        ledger: Ledger,
        key: Key,
        connect: Callable[[], Awaitable[Transport]],
        receive: Callable[[InFlightRequest, Completions], None],
        json_modes: JsonModeFallback,
    ) -> None:
        self._endpoint, self._ledger, self._key = endpoint, ledger, key
        self._connect, self._receive, self._json_modes = connect, receive, json_modes
        self.controller = RateController(endpoint)
        self.refusals = Refusals(endpoint)
        self._num_active = self._num_foreign = 0
        self._timed_out: set[str] = set()
        """Digests of calls that timed out before the endpoint answered anything."""
        self._any_answer = self._any_completion = False
        self._fatal: UserError | None = None
        """The error that ended the run: nothing is sent after it."""

    async def send(self, request: InFlightRequest) -> None:
        """Fetch the missing completions, or as many of them as the endpoint returns at once.

        Raises `CallError` if all retries failed, `UserError` for what no retry can cure.
        """
        self.refusals.check(request.call)
        self._num_active += 1
        try:
            await self._retry(await self._connect(), request)
        except UserError as error:
            self._fatal = error
            raise
        finally:
            self._num_active -= 1
            self.refusals.request_ended(self._num_active)
            if not self._num_active:
                self._fatal = None
                self.controller.reset_outage()

    async def _retry(self, transport: Transport, request: InFlightRequest) -> None:
        attempts = Attempts()
        while True:
            try:
                return await self._attempt(transport, request, attempts)
            except CallError as failure:
                delay = 0.0
                if not self._json_modes.refused(self._endpoint, attempts.body, failure):
                    if failure.kind == "refused" and not await self.refusals.concerns_prompt(
                        request.call, self._num_active
                    ):
                        raise final_error(failure, self._endpoint, transport.url) from failure
                    self._raise_if_final(transport, request, failure, attempts)
                    delay = self._delay(failure, attempts)
            if not request.wanted:
                raise asyncio.CancelledError
            await asyncio.sleep(delay)

    async def _attempt(self, transport: Transport, request: InFlightRequest, attempts: Attempts) -> None:
        """One HTTP request in a slot of its own."""
        body = attempts.body = self._body(request)
        size = _size(body, self._endpoint)
        usage: Usage | None = None
        slot = await self.controller.slot(request.number, size)
        try:
            if self._fatal is not None:
                raise self._fatal
            async with self._ledger.reserve(self._key, size, self._endpoint.price, transport.batch) as reservation:
                completions = await self._exchange(transport, request, slot, attempts, reservation)
                self._any_answer = self._any_completion = True
                self.refusals.accepted(request.call)
                self.controller.succeeded(slot)
                usage = completions.usage.usage() if completions.usage else Usage()
                self._settle(transport, reservation, request, completions, attempts)
                self._receive(request, completions)
        finally:
            self.controller.release(slot, size, usage)

    async def _exchange(
        self,
        transport: Transport,
        request: InFlightRequest,
        slot: Slot,
        attempts: Attempts,
        reservation: Reservation,
    ) -> Completions:
        """From here on the request is paid for, so it is booked even if it is cancelled. A cancelled batch request is
        not: its job continues, is billed later, and is booked by the run that fetches it."""
        counts = {"requests": 1, "retries": min(attempts.sent, 1), "batch_requests": int(transport.batch)}
        attempts.sent += 1
        request.sent = True
        self.controller.sent()
        try:
            return await transport.send(attempts.body, request.call.id(request.block[0]))
        except CallError as failure:
            if failure.billed:
                self._settle_unusable(transport, reservation, failure, counts)
            else:
                self.book(**counts, throttled=int(failure.kind == "throttled"))
                if failure.kind == "timeout":
                    reservation.charge_worst_case()
            if not transport.batch:
                self.controller.failed(slot, request.call.digest, failure, attempts.throttled)
            raise
        except asyncio.CancelledError:
            if not transport.batch:
                self.book(**counts)
            raise
        finally:
            request.sent = False

    def _raise_if_final(
        self, transport: Transport, request: InFlightRequest, failure: CallError, attempts: Attempts
    ) -> None:
        """Raise if a retry cannot help, or if the retries are used up."""
        self._any_answer |= failure.status is not None
        if failure.kind == "timeout" and not self._any_answer:
            self._count_timeout(transport, request, failure, attempts)
        self._num_foreign += failure.kind == "foreign"
        attempts.throttled += failure.kind == "throttled"
        attempts.failed += failure.kind != "throttled" and not self.controller.is_down
        attempts.unusable += failure.billed
        unreachable = failure.kind == "unreachable" and not self._any_answer and attempts.sent >= CONNECT_ATTEMPTS
        wrong_url = failure.kind == "foreign" and not self._any_completion and self._num_foreign >= FOREIGN_ATTEMPTS
        if failure.kind == "final" or unreachable or wrong_url:
            raise final_error(failure, self._endpoint, transport.url) from failure
        if failure.kind in ("prompt", "refused"):
            self.refusals.add(request.call, failure, transport.url)
            raise CallError("prompt", str(failure), failure.status) from failure
        undecided = failure.kind == "foreign" and not self._any_completion  # `wrong_url` soon decides for all requests
        used_up = attempts.failed > self._endpoint.max_retries and not undecided
        if transport.batch or used_up or attempts.unusable > MAX_UNUSABLE:
            raise failure

    def _count_timeout(
        self, transport: Transport, request: InFlightRequest, failure: CallError, attempts: Attempts
    ) -> None:
        """Stop soon if there were only timeouts so far: more of them would not help, and each may be billed."""
        attempts.timed_out += 1
        self._timed_out.add(request.call.digest)
        enough = len(self._timed_out) >= min(MIN_DISTINCT, self._num_active)
        if attempts.timed_out > self._endpoint.max_retries and enough:
            raise all_timed_out_error(failure, self._endpoint, transport.url) from failure

    def _delay(self, failure: CallError, attempts: Attempts) -> float:
        """Seconds before the next attempt; 0 during an outage, when the rate controller paces the probe requests."""
        if failure.kind == "throttled":
            return retry_delay(attempts.throttled - 1, self._endpoint, failure)
        return 0.0 if self.controller.is_down else retry_delay(attempts.failed - 1, self._endpoint, failure)

    def _body(self, request: InFlightRequest) -> dict[str, Any]:
        call, mode = request.call, self._json_modes.mode(self._endpoint)
        body = dict(call.body if mode == self._endpoint.json_mode else call.body_in(mode))
        block = request.block
        if len(block) > 1:
            body["n"] = len(block)
        if self._endpoint.takes_seed:
            body["seed"] = call.seed(block[0])
        return body

    def _settle(
        self,
        transport: Transport,
        reservation: Reservation,
        request: InFlightRequest,
        completions: Completions,
        attempts: Attempts,
    ) -> None:
        price, billed = self._endpoint.price, completions.billed
        usage = completions.usage.usage() if completions.usage else Usage()
        received = request.block[: len(completions.choices)]
        spending = Spending(
            requests=1,
            retries=int(attempts.sent > 1),
            batch_requests=int(transport.batch),
            completions=len(received),
            input_tokens=usage.input_tokens,
            cached_tokens=usage.cached_tokens,
            output_tokens=usage.output_tokens,
            usd=price.cost(billed, transport.batch) if price and billed else None,
        )
        reservation.settle(spending, tuple(request.call.id(i) for i in received))

    def _settle_unusable(
        self, transport: Transport, reservation: Reservation, failure: CallError, counts: dict[str, int]
    ) -> None:
        """Book a reply that is billed although it cannot be used."""
        price, usage = self._endpoint.price, failure.usage or Usage()
        usd = price.cost(usage, transport.batch) if price and failure.usage else None
        spending = Spending(
            requests=counts["requests"],
            retries=counts["retries"],
            batch_requests=counts["batch_requests"],
            input_tokens=usage.input_tokens,
            cached_tokens=usage.cached_tokens,
            output_tokens=usage.output_tokens,
            usd=usd,
        )
        reservation.settle(spending)

    def book(self, **counts: Any) -> None:
        """Add counters to the ledger at no cost; dollars stay unknown if the price is."""
        self._ledger.add(self._key, Spending(**counts, usd=None if self._endpoint.price is None else 0.0))


def _size(body: dict[str, Any], endpoint: Endpoint) -> RequestSize:
    characters = sum(content_length(message.get("content")) for message in body["messages"])
    return RequestSize(characters, body.get("n", 1), body.get(endpoint.token_limit) or endpoint.max_tokens)
