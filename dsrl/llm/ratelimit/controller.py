"""When each request of a client may be sent, learned from the outcome of the earlier ones."""

import logging
import time
from collections import deque
from dataclasses import dataclass, field

from dsrl.data.model import Usage
from dsrl.llm.endpoint import Endpoint
from dsrl.llm.failures import CallError, outage_error, retry_delay, timeout_advice
from dsrl.llm.ledger.spending import RequestSize
from dsrl.llm.ratelimit.limiter import Limiter, Slot

MIN_FAILURES, MIN_DOWN_FAILURES = 10, 4
"""Failures without a success that open the circuit breaker; the smaller number if each of them means `down`."""
MIN_DISTINCT = 3
"""Distinct requests from which those failures must come: a single one may be the reason itself."""
FIRST_PROBE_DELAY, MAX_PROBE_DELAY = 0.5, 4.0
SLOW_START_AFTER = 2.0
"""Seconds of outage after which the concurrency is raised slowly again."""
WARN_AFTER = 1.0
"""Seconds of outage before it is logged."""
DOWN_STATUS = (502, 503, 504, 529)
"""Sent by gateways for a server that is down, loading or overloaded."""
REQUEST_FAILURES = ("refused", "prompt", "final")
"""Kinds of failure that say nothing about the endpoint's health."""
CHARACTERS_PER_TOKEN = 4.0
"""Of prompts, before a reply has reported token counts."""
RATE_WINDOW = 10.0
"""Seconds over which the request rate is measured."""

log = logging.getLogger(__name__)


@dataclass
class CircuitBreaker:
    """Detects an outage. Retries are then not used up, and one probe request at a time is sent."""

    min_distinct: int = MIN_DISTINCT
    since: float | None = None
    """Time of the first failure or 429 after the last success."""
    is_open: bool = False
    warned: bool = False
    _failures: int = 0
    _down_failures: int = 0
    _delay: float = FIRST_PROBE_DELAY
    _failed: set[str] = field(default_factory=set)

    def failed(self, now: float, request: str, down: bool = False) -> None:
        """A failure for which the endpoint may be the reason. `request` identifies the request; `down`: it certainly
        is, for example if no connection is accepted."""
        self.throttled(now)
        self._failures += 1
        self._down_failures += down
        if len(self._failed) < self.min_distinct:
            self._failed.add(request)
        enough = self._failures >= MIN_FAILURES and len(self._failed) >= self.min_distinct
        self.is_open = self.is_open or enough or self._down_failures >= MIN_DOWN_FAILURES

    def throttled(self, now: float) -> None:
        """A 429 is not an outage, but not a success either."""
        self.since = now if self.since is None else self.since

    def next_probe_delay(self) -> float:
        delay, self._delay = self._delay, min(MAX_PROBE_DELAY, 2 * self._delay)
        return delay

    def reset(self) -> None:
        """After a success, or when no request is left."""
        self.since, self.is_open, self.warned = None, False, False
        self._failures, self._down_failures, self._delay = 0, 0, FIRST_PROBE_DELAY
        self._failed.clear()

    def down_for(self, now: float) -> float:
        """Seconds since the first of the current failures."""
        return 0.0 if self.since is None else now - self.since


class TokenEstimate:
    """Mean tokens of a request, for limits on tokens per minute (unlike the budget, which needs the worst case)."""

    def __init__(self) -> None:
        self._characters = self._input = self._output = self._completions = 0

    def tokens(self, size: RequestSize) -> float:
        """Prompt plus replies; before the first reply, its longest possible length."""
        each = self._output / self._completions if self._completions else size.max_tokens
        ratio = self._input / self._characters if self._characters else 1 / CHARACTERS_PER_TOKEN
        return size.prompt_characters * ratio + size.choices * each

    def learn(self, size: RequestSize, usage: Usage) -> None:
        self._characters += size.prompt_characters
        self._input += usage.input_tokens
        self._output += usage.output_tokens
        self._completions += size.choices


class RequestRate:
    """Requests per second over the last `RATE_WINDOW` seconds, from one counter per second."""

    def __init__(self) -> None:
        self._counts: deque[tuple[int, int]] = deque()
        self._first: float | None = None

    def add(self, now: float) -> None:
        self._first = now if self._first is None else self._first
        if self._counts and self._counts[-1][0] == int(now):
            self._counts[-1] = (int(now), self._counts[-1][1] + 1)
            return
        self._counts.append((int(now), 1))
        while self._counts[0][0] <= now - RATE_WINDOW - 1:
            self._counts.popleft()

    def per_second(self, now: float) -> float:
        """Changes nothing, so that other threads may call it."""
        if self._first is None:
            return 0.0
        start = now - RATE_WINDOW
        recent = sum(count * min(1.0, sec + 1 - start) for sec, count in tuple(self._counts) if sec + 1 > start)
        return recent / max(1.0, min(RATE_WINDOW, now - self._first))


@dataclass(frozen=True)
class ClientStatus:
    """Figures of one client since it was created."""

    in_flight: int
    limit: int
    """Requests in flight that are allowed now."""
    ceiling: int
    """The endpoint's `concurrency`."""
    waiting: int
    """Requests in the queue."""
    requests: int
    throttled: int
    """Requests answered with status 429."""
    requests_per_second: float
    """Over the last ten seconds."""
    breaker: float | None
    """Seconds for which the endpoint has been down; None: it is up."""
    batch: str | None = None
    """One line on the batch jobs; None without the batch API."""


class RateController:
    """Limiter and circuit breaker of one client. All times are those of its event loop."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        # batch requests are collected in a file, so they have no concurrency to learn
        self._limiter = (
            Limiter(endpoint.window, endpoint.window)
            if endpoint.batch
            else Limiter(endpoint.concurrency, rpm=endpoint.requests_per_minute, tpm=endpoint.tokens_per_minute)
        )
        self._breaker = CircuitBreaker(min(MIN_DISTINCT, endpoint.window))
        self._estimate = TokenEstimate()
        self._rate = RequestRate()
        self._requests = self._throttled = 0

    @property
    def is_down(self) -> bool:
        return self._breaker.is_open

    async def slot(self, number: int, size: RequestSize) -> Slot:
        """Wait until one more request may be sent, smaller numbers first. Return the slot with `release`."""
        return await self._limiter.acquire(number, self._estimate.tokens(size))

    def release(self, slot: Slot, size: RequestSize, usage: Usage | None) -> None:
        """`usage`: the tokens billed; None if there was no reply, which takes nothing from a limit on tokens."""
        if usage is not None:
            self._estimate.learn(size, usage)
        self._limiter.release(slot, usage.input_tokens + usage.output_tokens if usage else 0)

    def sent(self) -> None:
        self._requests += 1
        self._rate.add(_now())

    def succeeded(self, slot: Slot) -> None:
        down = self._breaker.down_for(_now())
        if self._breaker.is_open and down > SLOW_START_AFTER:
            self._limiter.concurrency.restart()
        if self._breaker.warned:
            log.warning("%s answers again, after %.0f s", self._endpoint.model, down)
        self._breaker.reset()
        self._limiter.succeeded(slot)

    def failed(self, slot: Slot, request: str, failure: CallError, throttled_before: int) -> None:
        """Call it while the request still has its slot. `throttled_before`: earlier 429s of the same request.

        Raises `StageFailed` once the endpoint has had no success for its `outage`.
        """
        now, breaker = _now(), self._breaker
        if failure.kind == "throttled":
            self._throttled += 1
            breaker.throttled(now)
            self._limiter.refused(slot, retry_delay(throttled_before, self._endpoint, failure))
        elif failure.kind not in REQUEST_FAILURES and not failure.billed:
            was_open = breaker.is_open
            breaker.failed(now, request, down=failure.kind == "unreachable" or failure.status in DOWN_STATUS)
            if breaker.is_open and (slot.is_probe or not was_open):
                self._limiter.probe_after(breaker.next_probe_delay())
        down = breaker.down_for(now)
        if down >= self._endpoint.outage and (breaker.is_open or failure.kind == "throttled"):
            raise outage_error(failure, self._endpoint, down)
        if breaker.is_open and not breaker.warned and down >= WARN_AFTER:
            breaker.warned = True
            advice = f"; if it is only slow, {timeout_advice(self._endpoint)}" if failure.kind == "timeout" else ""
            log.warning(
                "%s has been down for %.0f s: %s; retrying every few seconds, giving up after %g s (its `outage`)%s",
                *(self._endpoint.model, down, failure, self._endpoint.outage, advice),
            )

    def reset_outage(self) -> None:
        """No request is left: the time that passes now is not an outage."""
        self._breaker.reset()

    def status(self) -> ClientStatus:
        now = _now() if self._requests else 0.0
        return ClientStatus(
            in_flight=self._limiter.in_flight,
            limit=self._limiter.limit,
            ceiling=self._limiter.concurrency.ceiling,
            waiting=self._limiter.waiting,
            requests=self._requests,
            throttled=self._throttled,
            requests_per_second=self._rate.per_second(now),
            breaker=self._breaker.down_for(now) if self._breaker.is_open else None,
        )


def _now() -> float:
    """The clock of event loops; also usable in other threads, which have no running loop."""
    return time.monotonic()
