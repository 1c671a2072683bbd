"""How a client is doing at this moment, for whoever shows it."""

from collections import deque
from dataclasses import dataclass

WINDOW = 10.0
"""Seconds over which the rate is taken."""


@dataclass(frozen=True)
class Status:
    """Figures of one client since it was made."""

    in_flight: int
    limit: int
    """Requests in flight that are allowed now."""
    ceiling: int
    """The endpoint's `concurrency`."""
    waiting: int
    """Requests that wait for their turn."""
    requests: int
    throttled: int
    """Those that the endpoint turned away as too many (status 429)."""
    requests_per_second: float
    """Over the last ten seconds."""
    breaker: float | None
    """Seconds the endpoint has been down; None: it is up."""
    batch: str | None = None
    """How the batch jobs stand, in words; None: it has none, because each request goes out by itself."""


class Speed:
    """Events per second over the last ten seconds, in as many counters as there are seconds."""

    def __init__(self) -> None:
        self._counts: deque[tuple[int, int]] = deque()
        self._first: float | None = None

    def add(self, now: float) -> None:
        self._first = now if self._first is None else self._first
        if self._counts and self._counts[-1][0] == int(now):
            self._counts[-1] = (int(now), self._counts[-1][1] + 1)
            return
        self._counts.append((int(now), 1))
        while self._counts[0][0] <= now - WINDOW - 1:
            self._counts.popleft()

    def per_second(self, now: float) -> float:
        """Changes nothing, so that another thread may ask."""
        if self._first is None:
            return 0.0
        begin = now - WINDOW
        recent = sum(
            count * min(1.0, second + 1 - begin) for second, count in tuple(self._counts) if second + 1 > begin
        )
        return recent / max(1.0, min(WINDOW, now - self._first))
