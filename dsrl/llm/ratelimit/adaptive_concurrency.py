"""How many requests in flight an endpoint bears, learned from those that came home and those it turned away."""

FIRST = 32
"""Requests in flight at the start."""
HOLD, LONGEST_HOLD = 0.25, 4.0
"""Seconds for which a level is held before more is tried: twice as long each time it turns out to be the bound."""


class Level:
    """Slow start from a small number, one more for each success, until the ceiling or the first refusal; from then on
    as many as were in flight beside the request turned away, which is exactly what the endpoint bears. That is held
    for a while, then exceeded by one, and by e times as much in each round of successes. So a constant bound costs a
    refusal or two in four seconds, and a bound that was lifted is followed within a few rounds.
    """

    def __init__(self, ceiling: int, first: int = FIRST) -> None:
        self.ceiling = ceiling
        self._held_until = 0.0
        self.restart(first)

    def restart(self, first: int = FIRST) -> None:
        """Nothing is known: slow start."""
        self._known, self._extra = 0.0, float(min(self.ceiling, first))
        self._holding = False
        self._hold = HOLD

    @property
    def limit(self) -> int:
        return max(1, min(self.ceiling, int(self._known + self._extra)))

    def succeeded(self, now: float, waiting: int) -> None:
        """`waiting`: requests that found no room. Without any, a success says nothing about more of them."""
        if self._holding:
            if now >= self._held_until and 2 * waiting >= self.ceiling - self.limit:
                self._holding, self._extra = False, 1.0
        elif waiting:
            self._extra = min(self.ceiling - self._known, self._extra * (1 + 1 / self.limit))

    def refused(self, now: float, others: int) -> None:
        """`others`: requests in flight beside the one turned away."""
        if not self._holding:
            in_vain = self._known > 0 and others <= self._known
            self._hold = min(LONGEST_HOLD, 2 * self._hold) if in_vain else HOLD
        self._known = float(max(1, min(self.limit, others)))
        self._extra, self._holding, self._held_until = 0.0, True, now + self._hold
