"""When a request may be sent: concurrency limit, rate limits per minute, and order."""

import asyncio
import heapq
from dataclasses import dataclass
from typing import Self

from dsrl.llm.failures import CLOCK_SLACK

INITIAL_LIMIT = 32
"""Requests in flight at the start."""
RESTART_LIMIT = 4
"""Requests in flight after the endpoint refused everything for a while."""
HOLD, MAX_HOLD = 0.25, 4.0
"""Seconds before a higher concurrency is tried; doubled each time the current one turns out to be the limit."""
FREE_REFUSALS = 16
"""One 429, and one more per this many requests in flight, is ignored: isolated 429s don't show the limit."""
CLOSE_AFTER = 8
"""Consecutive 429s after which sending pauses. Requests sent before the first 429 was received don't count."""
BURST_SECONDS = 1.0
"""A rate limit allows a burst of this many seconds' worth."""


class AdaptiveConcurrency:
    """Learn how many requests in flight an endpoint accepts.

    Slow start: one more for each success, until the ceiling or the first refusal. Then as many as were in flight
    beside the refused request, which is exactly what the endpoint accepts. That is held for a while, then exceeded by
    one, and by a factor e in each further round of successes. A constant limit so costs a refusal or two in four
    seconds, and a raised limit is followed within a few rounds.
    """

    def __init__(self, ceiling: int, first: int = INITIAL_LIMIT) -> None:
        self.ceiling = ceiling
        self._hold_until = 0.0
        self.restart(first)

    def restart(self, first: int = INITIAL_LIMIT) -> None:
        """Forget what was learned: slow start."""
        self._known, self._extra = 0.0, float(min(self.ceiling, first))
        self._holding = False
        self._hold = HOLD

    @property
    def limit(self) -> int:
        return max(1, min(self.ceiling, int(self._known + self._extra)))

    def succeeded(self, now: float, waiting: int) -> None:
        """`waiting`: requests in the queue. With an empty queue, a success is no evidence for a higher limit."""
        if self._holding:
            if now >= self._hold_until and 2 * waiting >= self.ceiling - self.limit:
                self._holding, self._extra = False, 1.0
        elif waiting:
            self._extra = min(self.ceiling - self._known, self._extra * (1 + 1 / self.limit))

    def refused(self, now: float, others: int) -> None:
        """`others`: requests in flight beside the refused one."""
        if not self._holding:
            limit_confirmed = self._known > 0 and others <= self._known
            self._hold = min(MAX_HOLD, 2 * self._hold) if limit_confirmed else HOLD
        self._known = float(max(1, min(self.limit, others)))
        self._extra, self._holding, self._hold_until = 0.0, True, now + self._hold


class TokenBucket:
    """A limit per minute, spread evenly: no burst at the start of a minute or after a pause.

    The caller passes the time. The level may become negative, because the tokens of a request are known only once its
    reply has arrived.
    """

    def __init__(self, per_minute: float) -> None:
        self._per_second = per_minute / 60.0
        self._capacity = max(1.0, self._per_second * BURST_SECONDS)
        self._level = self._capacity
        self._updated: float | None = None

    @classmethod
    def of(cls, per_minute: int | None) -> Self | None:
        return None if per_minute is None else cls(per_minute)

    def wait(self, now: float, amount: float) -> float:
        """Seconds until `amount` may be taken; an amount above the capacity may go once the bucket is full."""
        passed = 0.0 if self._updated is None else max(0.0, now - self._updated)
        self._level = min(self._capacity, self._level + passed * self._per_second)
        self._updated = now
        return max(0.0, min(amount, self._capacity) - self._level) / self._per_second

    def take(self, amount: float) -> None:
        """A negative amount returns what was estimated too high."""
        self._level = min(self._capacity, self._level - amount)


@dataclass(eq=False)
class Slot:
    """The right to have one request in flight."""

    granted: asyncio.Future[None]
    tokens: float = 0.0
    """Estimate for prompt plus reply."""
    granted_at: float = 0.0
    is_probe: bool = False
    """The single request sent to an endpoint that is down."""


class Limiter:
    """Grants slots in order. Times are those of the event loop, so changes of the system clock do not matter.

    While the endpoint refuses everything, nothing is sent until the delay that it requested is over. While it is down
    (`probe_after`), one request at a time is.
    """

    def __init__(
        self, ceiling: int, first: int = INITIAL_LIMIT, rpm: int | None = None, tpm: int | None = None
    ) -> None:
        self.concurrency = AdaptiveConcurrency(ceiling, first)
        self.in_flight = 0
        self._buckets = (TokenBucket.of(rpm), TokenBucket.of(tpm))
        self._queue: list[tuple[int, int, Slot]] = []
        self._num_queued = 0
        self._closed_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._probing = False
        self._probe: Slot | None = None
        self._refused = self._refused_later = 0
        """Refusals since the last success, and those of requests sent after the first refusal was known."""
        self._first_refusal = 0.0

    @property
    def limit(self) -> int:
        """Requests in flight that are allowed now."""
        return 1 if self._probing else self.concurrency.limit

    @property
    def waiting(self) -> int:
        return len(self._queue)

    async def acquire(self, number: int = 0, tokens: float = 0.0) -> Slot:
        """Wait for a slot: smaller numbers first, then first come, first served. Return it with `release`."""
        slot = Slot(asyncio.get_running_loop().create_future(), tokens)
        self._num_queued += 1
        heapq.heappush(self._queue, (number, self._num_queued, slot))
        self._grant()
        try:
            await slot.granted
        except asyncio.CancelledError:
            if slot.granted.done() and not slot.granted.cancelled():
                self.release(slot)
            raise
        return slot

    def release(self, slot: Slot, tokens: float | None = None) -> None:
        """`tokens`: the actual number, if known."""
        self.in_flight -= 1
        if slot is self._probe:
            self._probe = None
        if (bucket := self._buckets[1]) is not None and tokens is not None:
            bucket.take(tokens - slot.tokens)
        self._grant()

    def succeeded(self, slot: Slot) -> None:
        """Only a request sent after the first refusal was known shows that the endpoint accepts requests again."""
        if self._probing:
            self._probing, self._closed_until = False, 0.0
        if slot.granted_at >= self._first_refusal:
            self._refused = self._refused_later = 0
            self.concurrency.succeeded(_now(), len(self._queue))

    def refused(self, slot: Slot, delay: float) -> None:
        """The endpoint answered 429 and requests a delay in seconds. Call it while the request still has its slot."""
        others = self.in_flight - 1
        if not self._refused:
            self._first_refusal = _now()
        self._refused += 1
        self._refused_later += slot.granted_at >= self._first_refusal
        if self._refused > max(1, self.limit // FREE_REFUSALS):
            self.concurrency.refused(_now(), others)
        if not others or self._refused_later >= max(CLOSE_AFTER, 2 * others):
            self.concurrency.restart(RESTART_LIMIT)
            self._refused = self._refused_later = 0
            self._close(delay)

    def probe_after(self, delay: float) -> None:
        """The endpoint is down: one request at a time from now on, the next one after `delay` seconds."""
        self._probing = True
        self._close(delay)

    def _close(self, seconds: float) -> None:
        self._closed_until = max(self._closed_until, _now() + seconds)
        self._grant_at(self._closed_until)

    def _grant_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._grant)

    def _grant(self) -> None:
        """Grant slots from the front of the queue for as long as the limits allow."""
        now = _now()
        if self._closed_until > now + CLOCK_SLACK:
            return
        while self._queue and (self._probe is None if self._probing else self.in_flight < self.concurrency.limit):
            slot = self._queue[0][2]
            amounts = tuple(zip(self._buckets, (1.0, slot.tokens), strict=True))
            if not slot.granted.cancelled():
                delay = max((bucket.wait(now, amount) for bucket, amount in amounts if bucket), default=0.0)
                if delay:
                    self._grant_at(now + delay)
                    return
            heapq.heappop(self._queue)
            if slot.granted.cancelled():
                continue
            self.in_flight += 1
            slot.granted_at, slot.is_probe = now, self._probing
            if self._probing:
                self._probe = slot
            for bucket, amount in amounts:
                if bucket is not None:
                    bucket.take(amount)
            slot.granted.set_result(None)


def _now() -> float:
    return asyncio.get_running_loop().time()
