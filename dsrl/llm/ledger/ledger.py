"""What was spent, by stage, role and model, and the budget of the run."""

from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any

from dsrl.data.model import Reply, Usage
from dsrl.llm.ledger.budget import Budget, Reservation
from dsrl.llm.ledger.spending import Key, RequestSize, Spending, SpendingTotal
from dsrl.llm.price import Price

Watcher = Callable[[Key, Spending], None]
Counters = dict[str, Any]


class Ledger:
    """Requests, tokens and dollars of a run. Thread-safe. Watchers receive the new sum of a key after each change."""

    def __init__(self, budget_usd: float | None = None, budget_tokens: int | None = None) -> None:
        """The most dollars and tokens (input plus output) that this run may spend; None: no limit."""
        self._budget = Budget(budget_usd, budget_tokens, self._book)
        self._totals: dict[Key, SpendingTotal] = {}
        self._used: dict[Key, set[int]] = {}
        self._stage: str | None = None
        self._at_begin: dict[Key, Spending] = {}
        self._watchers: list[Watcher] = []
        self._lock = Lock()

    def watch(self, watcher: Watcher) -> None:
        self._watchers.append(watcher)

    def reserve(self, key: Key, size: RequestSize, price: Price | None, batch: bool = False) -> Reservation:
        """A share of the budget for one HTTP request: `async with ledger.reserve(...) as reservation`.

        Waits while requests in flight stand in the way; raises `BudgetReached` once nothing is in flight and it still
        does not fit. Book the actual cost inside, with `reservation.settle(spending)`. The worst case is the prompt
        plus, for each choice, `max_tokens`, or 1.5 times the longest reply of this key once four were seen. Before
        that, a request that exceeds the budget only by its worst case may still be sent alone. `batch`: at the price
        of the batch API.
        """
        return Reservation(self._budget, key, size, price, batch)

    def add(self, key: Key, spending: Spending) -> None:
        """Book what has no reservation or no cost: failures, repairs, replies of local models."""
        with self._lock:
            total = self._totals.get(key) or self._totals.setdefault(key, SpendingTotal())
            total.add(spending)
            row = total.sum() if self._watchers else spending
        for watcher in self._watchers:
            watcher(key, row)

    def reuse(self, key: Key, replies: Iterable[Reply], price: Price | None) -> None:
        """Book cache hits and what they cost when they were paid for: each completion once a stage, and none that this
        run paid for itself."""
        replies = list(replies)
        with self._lock:
            used = self._used.setdefault(key, set())
            fresh = {hash(reply.call): reply.usage for reply in replies if hash(reply.call) not in used}
            used.update(fresh)
        self.add(key, _hit_spending(list(fresh.values()), price, hits=len(replies)))

    def rows(self) -> dict[Key, Spending]:
        with self._lock:
            return {key: total.sum() for key, total in self._totals.items()}

    def sums(self, stage: str | None = None) -> Spending:
        """The sum over the run, or over one stage."""
        return sum((row for key, row in self.rows().items() if stage in (None, key[0])), Spending())

    def begin(self, stage: str) -> None:
        """Start a stage, or a further round of it: what it spent before is not part of `of`."""
        rows = self.rows()
        with self._lock:
            self._stage = stage
            self._at_begin = {key: row for key, row in rows.items() if key[0] == stage}
            for key in self._at_begin:
                self._used.pop(key, None)

    def of(self, stage: str) -> dict[str, Counters]:
        """Role -> counters of one stage since it began, as in `metrics.json`."""
        rows = {key: row for key, row in self.rows().items() if key[0] == stage and row != self._at_begin.get(key)}
        since = {key: row - self._at_begin[key] if key in self._at_begin else row for key, row in rows.items()}
        return _by_role(since)

    def current_stage(self) -> Spending:
        """The sum of the running stage since it began."""
        return self.sums(self._stage) - sum(self._at_begin.values(), Spending())

    def totals(self) -> dict[str, Counters]:
        """Role -> counters of the whole run."""
        return _by_role(self.rows())

    def _book(self, key: Key, spending: Spending, calls: tuple[str, ...]) -> None:
        with self._lock:
            self._used.setdefault(key, set()).update(map(hash, calls))
        self.add(key, spending)


def _hit_spending(usages: list[Usage], price: Price | None, hits: int) -> Spending:
    """Dollars are unknown if the price is, or if the endpoint had reported no tokens."""
    known = price is not None and any(usage.input_tokens or usage.output_tokens for usage in usages)
    return Spending(
        store_hits=hits,
        hit_completions=len(usages),
        hit_input_tokens=sum(usage.input_tokens for usage in usages),
        hit_cached_tokens=sum(usage.cached_tokens for usage in usages),
        hit_output_tokens=sum(usage.output_tokens for usage in usages),
        hit_usd=sum(price.cost(usage) for usage in usages) if price and known else 0.0 if not usages else None,
    )


def _by_role(rows: dict[Key, Spending]) -> dict[str, Counters]:
    sums: dict[str, Spending] = {}
    for (_, role, _), row in rows.items():
        sums[role] = sums.get(role, Spending()) + row
    return {role: row.counters() for role, row in sums.items()}
