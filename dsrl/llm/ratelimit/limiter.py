"""Who may send now: so many in flight, so many a minute, and in turn."""

import asyncio
import heapq
from dataclasses import dataclass

from dsrl.llm.failures import CLOCK_SLACK
from dsrl.llm.ratelimit.adaptive_concurrency import FIRST, Level
from dsrl.llm.ratelimit.token_bucket import Rate

FIRST_AGAIN = 4
"""Requests in flight after a time in which the endpoint admitted nothing."""
FORGIVEN = 16
"""One refusal, and one more for so many in flight, may be bad luck or somebody else's doing, and is no bound found."""
SHUT_AFTER = 8
"""Refusals in a row, none sent before the first was known, after which nobody asks for a while."""


@dataclass(eq=False)
class Slot:
    """The right to have one request in flight."""

    turn: asyncio.Future[None]
    tokens: float = 0.0
    """Prompt and reply, as estimated."""
    taken: float = 0.0
    """Loop time at which it was given."""
    knocks: bool = False
    """Whether it is the one request that goes to an endpoint which is down."""


class Limiter:
    """Slots, given in turn. Times are the event loop's: a clock that jumps moves nothing.

    While an endpoint admits nothing at all, nobody asks until the waiting time is over that it gave. While it is down
    (`knock`), one request at a time does.
    """

    def __init__(self, ceiling: int, first: int = FIRST, rpm: int | None = None, tpm: int | None = None) -> None:
        self.level = Level(ceiling, first)
        self.in_flight = 0
        self._rates = (Rate.of(rpm), Rate.of(tpm))
        self._waiting: list[tuple[int, int, Slot]] = []
        self._num_asked = 0
        self._closed_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._knocking = False
        self._knocker: Slot | None = None
        self._refused = self._in_vain = 0
        self._refused_since = 0.0

    @property
    def ceiling(self) -> int:
        return self.level.ceiling

    @property
    def limit(self) -> int:
        """Requests in flight that are allowed now."""
        return 1 if self._knocking else self.level.limit

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def acquire(self, number: int = 0, tokens: float = 0.0) -> Slot:
        """Waits for a slot. Smaller numbers go first, equal ones in order of asking. Give it back with `release`."""
        slot = Slot(asyncio.get_running_loop().create_future(), tokens)
        self._num_asked += 1
        heapq.heappush(self._waiting, (number, self._num_asked, slot))
        self._wake()
        try:
            await slot.turn
        except asyncio.CancelledError:
            if slot.turn.done() and not slot.turn.cancelled():
                self.release(slot)
            raise
        return slot

    def release(self, slot: Slot, tokens: float | None = None) -> None:
        """`tokens`: how many it took in the end, as far as known."""
        self.in_flight -= 1
        if slot is self._knocker:
            self._knocker = None
        if (rate := self._rates[1]) is not None and tokens is not None:
            rate.take(tokens - slot.tokens)
        self._wake()

    def succeeded(self, slot: Slot) -> None:
        """Only what was sent after the first refusal was known says that the endpoint admits requests again."""
        if self._knocking:
            self._knocking, self._closed_until = False, 0.0
        if slot.taken >= self._refused_since:
            self._refused = self._in_vain = 0
            self.level.succeeded(_now(), len(self._waiting))

    def refused(self, slot: Slot, pause: float) -> None:
        """The endpoint turned the request away for so many seconds. Called while it still holds its slot."""
        others = self.in_flight - 1
        if not self._refused:
            self._refused_since = _now()
        self._refused += 1
        self._in_vain += slot.taken >= self._refused_since
        if self._refused > max(1, self.limit // FORGIVEN):
            self.level.refused(_now(), others)
        if not others or self._in_vain >= max(SHUT_AFTER, 2 * others):
            self.level.restart(FIRST_AGAIN)
            self._refused = self._in_vain = 0
            self._close(pause)

    def knock(self, pause: float) -> None:
        """The endpoint is down: from now on one request at a time, and none for so many seconds."""
        self._knocking = True
        self._close(pause)

    def _close(self, seconds: float) -> None:
        self._closed_until = max(self._closed_until, _now() + seconds)
        self._wake_at(self._closed_until)

    def _wake_at(self, when: float) -> None:
        """One timer is enough: when it rings, the next is set."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._wake)

    def _wake(self) -> None:
        if self._closed_until > _now() + CLOCK_SLACK:
            return
        while self._waiting and self._has_room():
            slot = self._waiting[0][2]
            if not slot.turn.cancelled() and (wait := self._rate_wait(slot)):
                self._wake_at(_now() + wait)
                return
            heapq.heappop(self._waiting)
            if not slot.turn.cancelled():
                self._give(slot)

    def _has_room(self) -> bool:
        return self._knocker is None if self._knocking else self.in_flight < self.level.limit

    def _give(self, slot: Slot) -> None:
        self.in_flight += 1
        slot.taken, slot.knocks = _now(), self._knocking
        if self._knocking:
            self._knocker = slot
        for rate, amount in zip(self._rates, (1.0, slot.tokens), strict=True):
            if rate is not None:
                rate.take(amount)
        slot.turn.set_result(None)

    def _rate_wait(self, slot: Slot) -> float:
        amounts = (1.0, slot.tokens)
        waits = [rate.wait(_now(), amount) for rate, amount in zip(self._rates, amounts, strict=True) if rate]
        return max(waits, default=0.0)


def _now() -> float:
    return asyncio.get_running_loop().time()
