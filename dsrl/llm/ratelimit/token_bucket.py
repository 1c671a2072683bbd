"""Ceilings per minute, spread evenly: no burst at the start of a minute, none to make up for a pause."""

from typing import Self

SECONDS = 60.0
BURST = 1.0
"""Seconds whose worth may be sent at once."""


class Rate:
    """A token bucket over a clock that is handed in. It may go into debt, because what a request took is known only
    once its reply is there."""

    def __init__(self, per_minute: float) -> None:
        self._per_second = per_minute / SECONDS
        self._most = max(1.0, self._per_second * BURST)
        self._level = self._most
        self._at: float | None = None

    @classmethod
    def of(cls, per_minute: int | None) -> Self | None:
        return None if per_minute is None else cls(per_minute)

    def wait(self, now: float, amount: float) -> float:
        """Seconds until so much may be taken; more than the bucket holds may go once it is full."""
        self._fill(now)
        return max(0.0, min(amount, self._most) - self._level) / self._per_second

    def take(self, amount: float) -> None:
        """Negative: gives back what was estimated too high."""
        self._level = min(self._most, self._level - amount)

    def _fill(self, now: float) -> None:
        passed = 0.0 if self._at is None else max(0.0, now - self._at)
        self._level = min(self._most, self._level + passed * self._per_second)
        self._at = now
