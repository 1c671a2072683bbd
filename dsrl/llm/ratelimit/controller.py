"""The pace that one endpoint bears: who may send when, learned from what becomes of each request."""

import logging
import time

from dsrl.data.model import Usage
from dsrl.llm.endpoint import Endpoint
from dsrl.llm.failures import CallError, outage_error, pause, waiting_advice
from dsrl.llm.ledger.ledger import Size
from dsrl.llm.ratelimit.breaker import DIFFERENT, Breaker
from dsrl.llm.ratelimit.limiter import Limiter, Slot
from dsrl.llm.ratelimit.status import Speed, Status
from dsrl.llm.ratelimit.token_estimate import Usual

RAMP_AFTER = 2.0
"""Seconds down after which an endpoint gets its load back slowly."""
SAID_AFTER = 1.0
"""Seconds down before it is said: a short run of bad luck is no news."""
DOWN_STATUS = (502, 503, 504, 529)
"""What gateways say for a server that is down, loading or overloaded."""
ABOUT_THE_REQUEST = ("prompt", "final")

log = logging.getLogger(__name__)


class Pace:
    """Limiter and breaker of one client. Used inside its event loop, whose clock all times are of."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._limiter = _limiter(endpoint)
        self._breaker = Breaker(endpoint.outage, min(DIFFERENT, endpoint.window))
        self._usual = Usual()
        self._speed = Speed()
        self._requests = self._throttled = 0

    @property
    def is_down(self) -> bool:
        return self._breaker.is_open

    async def slot(self, number: int, size: Size) -> Slot:
        """Waits until one more request may be sent, smaller numbers first; to be given back with `release`."""
        return await self._limiter.acquire(number, self._usual.tokens(size))

    def release(self, slot: Slot, size: Size, usage: Usage | None) -> None:
        """`usage`: what came; None where nothing did, and nothing was taken from a ceiling on tokens."""
        if usage is not None:
            self._usual.learn(size, usage)
        self._limiter.release(slot, usage.input_tokens + usage.output_tokens if usage else 0)

    def sent(self) -> None:
        self._requests += 1
        self._speed.add(_now())

    def succeeded(self, slot: Slot) -> None:
        down = self._breaker.down(_now())
        if self._breaker.is_open and down > RAMP_AFTER:
            self._limiter.level.restart()
        if self._breaker.said:
            log.warning("%s answers again, after %.0f s", self._endpoint.model, down)
        self._breaker.reset()
        self._limiter.succeeded(slot)

    def failed(self, slot: Slot, request: str, failure: CallError, turned_away: int) -> None:
        """Called while the request holds its slot; `turned_away`: how often it had been so before.

        Raises `StageFailed` once the endpoint has brought nothing for as long as its `outage`.
        """
        if failure.kind == "throttled":
            self._throttled += 1
            self._breaker.turned_away(_now())
            self._limiter.refused(slot, pause(turned_away, self._endpoint, failure))
        elif failure.kind not in ABOUT_THE_REQUEST:
            self._knock(slot, request, failure)
        down = self._breaker.down(_now())
        if down >= self._endpoint.outage and (self._breaker.is_open or failure.kind == "throttled"):
            raise outage_error(failure, self._endpoint, down)
        if self._breaker.is_open and not self._breaker.said and down >= SAID_AFTER:
            self._say(failure, down)

    def rest(self) -> None:
        """Nobody asks any more: the time that passes now is no outage."""
        self._breaker.reset()

    def status(self) -> Status:
        now = _now() if self._requests else 0.0
        return Status(
            in_flight=self._limiter.in_flight,
            limit=self._limiter.limit,
            ceiling=self._limiter.ceiling,
            waiting=self._limiter.waiting,
            requests=self._requests,
            throttled=self._throttled,
            requests_per_second=self._speed.per_second(now),
            breaker=self._breaker.down(now) if self._breaker.is_open else None,
        )

    def _knock(self, slot: Slot, request: str, failure: CallError) -> None:
        was_open = self._breaker.is_open
        plain = failure.kind == "unreachable" or failure.status in DOWN_STATUS
        self._breaker.failed(_now(), request, plain)
        if self._breaker.is_open and (slot.knocks or not was_open):
            self._limiter.knock(self._breaker.next_pause())

    def _say(self, failure: CallError, down: float) -> None:
        self._breaker.said = True
        log.warning(
            "%s is down since %.0f s: %s; trying again every few seconds, giving up after %g s (its `outage`)%s",
            self._endpoint.model,
            down,
            failure,
            self._endpoint.outage,
            f"; if it is only slow, {waiting_advice(self._endpoint)}" if failure.kind == "timeout" else "",
        )


def _limiter(endpoint: Endpoint) -> Limiter:
    """A batch has no concurrency: its requests are gathered in a file."""
    if endpoint.batch:
        return Limiter(endpoint.window, endpoint.window)
    rates = endpoint.requests_per_minute, endpoint.tokens_per_minute
    return Limiter(endpoint.concurrency, rpm=rates[0], tpm=rates[1])


def _now() -> float:
    """The loop's time; outside of it, as where a thread shows the status, the clock that loops use."""
    return time.monotonic()
