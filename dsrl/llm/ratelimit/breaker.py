"""Whether an endpoint is down: then nobody's retries are spent on it, and one request at a time knocks."""

from dataclasses import dataclass, field

ENOUGH, PLAIN_ENOUGH = 10, 4
"""Failures without a success between them that make an outage; fewer do where each says so in plain words."""
DIFFERENT = 3
"""Requests that the former must come from: one alone may be the reason itself."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 4.0


@dataclass
class Breaker:
    """Counts what an endpoint fails at since its last success. Times are the event loop's."""

    patience: float
    """Seconds without any success after which the endpoint is given up."""
    different: int = DIFFERENT
    since: float | None = None
    """When the first failure after the last success came, refusals for too many requests among them."""
    is_open: bool = False
    said: bool = False
    """Whether the user was told of this outage."""
    _failures: int = 0
    _plain: int = 0
    _pause: float = FIRST_PAUSE
    _failed: set[str] = field(default_factory=set)

    def failed(self, now: float, request: str, plain: bool = False) -> None:
        """A failure that the endpoint may be the reason for; `request` tells requests apart.

        `plain`: there is no doubt, as where nobody listens.
        """
        self.turned_away(now)
        self._failures += 1
        self._plain += plain
        if len(self._failed) < self.different:
            self._failed.add(request)
        many = self._failures >= ENOUGH and len(self._failed) >= self.different
        self.is_open = self.is_open or many or self._plain >= PLAIN_ENOUGH

    def turned_away(self, now: float) -> None:
        """Too many requests: no sign of an outage, but none of life either."""
        self.since = now if self.since is None else self.since

    def next_pause(self) -> float:
        """Seconds before the next request may knock."""
        pause, self._pause = self._pause, min(LONGEST_PAUSE, 2 * self._pause)
        return pause

    def reset(self) -> None:
        """There was a success, or nobody asks any more."""
        self.since, self.is_open, self.said = None, False, False
        self._failures, self._plain, self._pause = 0, 0, FIRST_PAUSE
        self._failed.clear()

    def down(self, now: float) -> float:
        """Seconds since when nothing but failures came."""
        return 0.0 if self.since is None else now - self.since
