"""Who is let in: capacity that changes on schedule, a quota per minute, and outages."""

import time
from collections import deque

from tests.support.faultserver.faults import Faults

MINUTE = 60.0


class Gate:
    """Counts the requests in service, and those let in within the last minute."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.started = time.monotonic()
        self.inside = 0
        self._admitted: deque[float] = deque()

    def restart(self) -> None:
        """Schedules begin anew."""
        self.started = time.monotonic()

    def full(self) -> float | None:
        """Seconds to wait where nobody is let in now; None where there is room."""
        capacity = self.capacity()
        if capacity is not None and self.inside >= capacity:
            return self.faults.retry_after
        quota = self.faults.requests_per_minute
        if quota is None:
            return None
        now = time.monotonic()
        while self._admitted and self._admitted[0] <= now - MINUTE:
            self._admitted.popleft()
        if len(self._admitted) < quota:
            return None
        return self._admitted[0] + MINUTE - now if self._admitted else self.faults.retry_after

    def enter(self) -> None:
        self.inside += 1
        if self.faults.requests_per_minute is not None:
            self._admitted.append(time.monotonic())

    def leave(self) -> None:
        self.inside -= 1

    def capacity(self) -> int | None:
        """The last one that the schedule has come to."""
        if not self.faults.schedule:
            return self.faults.capacity
        passed = [capacity for second, capacity in sorted(self.faults.schedule) if second <= self.age]
        return passed[-1] if passed else self.faults.capacity

    def outage(self) -> str | None:
        """How the server is down by schedule, if it is."""
        if not self.faults.outages:
            return None
        age = self.age
        return next((outage.how for outage in self.faults.outages if outage.start <= age < outage.end), None)

    @property
    def age(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started
