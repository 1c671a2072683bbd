"""How many requests may be in flight: fewer when the endpoint says it is too much, slowly more while it copes."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

CLOCK_SLACK = 0.01
"""Seconds by which an event loop's timers may come early."""


class Limiter:
    """Slots handed out in order of asking. Their number is halved on "too many requests" and grows by one per round of
    successes (AIMD). While an endpoint admits nothing at all, nobody asks until its own waiting time is over."""

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self.limit = float(ceiling)
        self.in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._last_cut = -1.0
        self._admits = True
        self._closed_until = 0.0

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[float]:
        """Waits for a slot and holds it; gives the loop time at which it was taken."""
        await self._acquire()
        try:
            yield asyncio.get_running_loop().time()
        finally:
            self._release()

    def succeeded(self) -> None:
        self._admits = True
        self.limit = min(float(self.ceiling), self.limit + 1 / self.limit)

    def throttled(self, taken: float, pause: float) -> None:
        """A request whose slot was taken at loop time `taken` was turned away for `pause` seconds.

        Those sent before the last cut say nothing new: they don't cut again.
        """
        loop = asyncio.get_running_loop()
        if taken < self._last_cut:
            return
        self.limit = max(1.0, min(self.limit, self.in_flight + 1.0) / 2)
        self._last_cut = loop.time()
        if not self._admits:
            self._closed_until = max(self._closed_until, loop.time() + pause)
            loop.call_at(self._closed_until, self._wake)
        self._admits = False

    async def _acquire(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._wake()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release()
            raise

    def _release(self) -> None:
        self.in_flight -= 1
        self._wake()

    def _wake(self) -> None:
        if asyncio.get_running_loop().time() + CLOCK_SLACK < self._closed_until:
            return
        while self._waiting and self.in_flight < int(self.limit):
            turn = self._waiting.popleft()
            if not turn.cancelled():
                self.in_flight += 1
                turn.set_result(None)
