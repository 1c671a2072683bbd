"""Who spent what: requests, tokens and dollars by stage, role and model, and the budget that bounds them."""

from collections.abc import Callable, Iterable
from threading import Lock
from typing import TYPE_CHECKING, Any

from dsrl.data.model import Reply, Usage
from dsrl.llm.ledger.budget import Budget, Reservation
from dsrl.llm.ledger.cost_bound import Size
from dsrl.llm.ledger.spending import Key, Spending, Tally

if TYPE_CHECKING:
    from dsrl.llm.endpoint import Price

__all__ = ["Key", "Ledger", "Reservation", "Size", "Spending", "Watcher"]

Watcher = Callable[[Key, Spending], None]
Counters = dict[str, Any]


class Ledger:
    """Safe in threads. Watchers are told the new sum of a key after each change."""

    def __init__(self, budget_usd: float | None = None, budget_tokens: int | None = None) -> None:
        """Most dollars, and most tokens (input and output), that this run may spend; None: no bound."""
        self._budget = Budget(budget_usd, budget_tokens, self._book)
        self._rows: dict[Key, Tally] = {}
        self._used: dict[Key, set[int]] = {}
        self._stage: str | None = None
        self._begun: dict[Key, Spending] = {}
        self._watchers: list[Watcher] = []
        self._lock = Lock()

    def watch(self, watcher: Watcher) -> None:
        self._watchers.append(watcher)

    def reserve(self, key: Key, size: Size, price: "Price | None", batch: bool = False) -> Reservation:
        """Room in the budget for one HTTP request: `async with ledger.reserve(...) as reservation`.

        Waits while only requests in flight stand in the way; raises `BudgetReached` once nothing is in flight and it
        still doesn't fit. What came is booked inside, with `reservation.settle(spending)`. A request is taken to cost
        at most its prompt and, for each choice, `max_tokens`, or one and a half times the longest reply of this key
        once four were seen. Only what comes before that may go alone without being covered by its bound. `batch`: it
        goes through the batch interface, at its price.
        """
        return Reservation(self._budget, key, size, price, batch)

    def add(self, key: Key, spending: Spending) -> None:
        """Books what has no reservation, or cost nothing: failures, repairs, replies of local models."""
        with self._lock:
            tally = self._rows.get(key) or self._rows.setdefault(key, Tally())
            tally.add(spending)
            row = tally.sum() if self._watchers else spending
        for watcher in self._watchers:
            watcher(key, row)

    def reuse(self, key: Key, replies: Iterable[Reply], price: "Price | None") -> None:
        """Books replies that came out of the store, and what they had cost when they were paid for: each completion
        once a stage, and none that this run has paid for itself."""
        replies = list(replies)
        with self._lock:
            used = self._used.setdefault(key, set())
            fresh = {hash(reply.call): reply.usage for reply in replies if hash(reply.call) not in used}
            used.update(fresh)
        self.add(key, _worth(list(fresh.values()), price, hits=len(replies)))

    def rows(self) -> dict[Key, Spending]:
        with self._lock:
            return {key: tally.sum() for key, tally in self._rows.items()}

    def sums(self, stage: str | None = None) -> Spending:
        """The whole run in one row, or one stage of it."""
        return sum((row for key, row in self.rows().items() if stage in (None, key[0])), Spending())

    def begin(self, stage: str) -> None:
        """A stage begins, perhaps anew in a further round: what it spent so far is no part of `of`."""
        rows = self.rows()
        with self._lock:
            self._stage = stage
            self._begun = {key: row for key, row in rows.items() if key[0] == stage}
            for key in self._begun:
                self._used.pop(key, None)

    def of(self, stage: str) -> dict[str, Counters]:
        """Role -> counters of one stage since it began, as `metrics.json` has them."""
        rows = {key: row for key, row in self.rows().items() if key[0] == stage and row != self._begun.get(key)}
        return _by_role((key, row - self._begun[key] if key in self._begun else row) for key, row in rows.items())

    def at_work(self) -> Spending:
        """The stage at work in one row, since it began."""
        begun = sum(self._begun.values(), Spending())
        return self.sums(self._stage) - begun

    def totals(self) -> dict[str, Counters]:
        """Role -> counters of the whole run."""
        return _by_role(self.rows().items())

    def _book(self, key: Key, spending: Spending, calls: tuple[str, ...]) -> None:
        with self._lock:
            self._used.setdefault(key, set()).update(map(hash, calls))
        self.add(key, spending)


def _worth(usages: list[Usage], price: "Price | None", hits: int) -> Spending:
    """Dollars stay unknown where the price is, or where the endpoint had not said its tokens."""
    known = price is not None and any(usage.input_tokens or usage.output_tokens for usage in usages)
    return Spending(
        store_hits=hits,
        hit_completions=len(usages),
        hit_input_tokens=sum(usage.input_tokens for usage in usages),
        hit_cached_tokens=sum(usage.cached_tokens for usage in usages),
        hit_output_tokens=sum(usage.output_tokens for usage in usages),
        hit_usd=sum(price.cost(usage) for usage in usages) if price and known else 0.0 if not usages else None,
    )


def _by_role(rows: Iterable[tuple[Key, Spending]]) -> dict[str, Counters]:
    sums: dict[str, Spending] = {}
    for (_, role, _), row in rows:
        sums[role] = sums.get(role, Spending()) + row
    return {role: row.counters() for role, row in sums.items()}
