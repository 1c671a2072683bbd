"""Who spent what: requests, tokens and dollars by stage, role and model."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from threading import Lock

from dsrl.errors import BudgetReached


@dataclass(frozen=True)
class Spending:
    """What one model cost one stage in one role. Replies out of the store are hits and cost nothing again."""

    requests: int = 0
    """HTTP requests sent, repeats included."""
    completions: int = 0
    """Replies received and stored."""
    store_hits: int = 0
    retries: int = 0
    """Those of the requests that repeated a failed one."""
    errors: int = 0
    """Completions that are missing after all repeats."""
    repairs: int = 0
    """Replies sent back because they were not the JSON that was asked for."""
    input_tokens: int = 0
    cached_tokens: int = 0
    """Those of the input tokens that the endpoint found in its own cache."""
    output_tokens: int = 0
    usd: float | None = 0.0
    """None: unknown, because a price or a token count is."""

    def __add__(self, other: "Spending") -> "Spending":
        known = self.usd is not None and other.usd is not None
        sums = {name: value + getattr(other, name) for name, value in asdict(self).items() if name != "usd"}
        return Spending(**sums, usd=(self.usd or 0.0) + (other.usd or 0.0) if known else None)


Key = tuple[str, str, str]
"""Stage, role (`teacher`, `model`), model id."""
Watcher = Callable[[Key, Spending], None]


class Ledger:
    """Safe in threads. Watchers are told the new sum of a key after each change, for live progress."""

    def __init__(self, budget_usd: float | None = None) -> None:
        """`budget_usd`: most dollars that this run may spend; None: no bound."""
        self.budget_usd = budget_usd
        self._rows: dict[Key, Spending] = {}
        self._watchers: list[Watcher] = []
        self._lock = Lock()

    def watch(self, watcher: Watcher) -> None:
        self._watchers.append(watcher)

    def add(self, key: Key, spending: Spending) -> None:
        with self._lock:
            row = self._rows[key] = self._rows.get(key, Spending()) + spending
        for watcher in self._watchers:
            watcher(key, row)

    def check_budget(self, key: Key, in_flight: int) -> None:
        """Raises `BudgetReached` if the requests in flight, at this key's mean price so far, could pass the budget."""
        if self.budget_usd is None:
            return
        rows = self.rows()
        spent, own = sum(row.usd or 0.0 for row in rows.values()), rows.get(key, Spending())
        each = (own.usd or 0.0) / max(1, own.requests - own.retries)
        if spent + each * in_flight > self.budget_usd or self.budget_usd == 0:
            raise BudgetReached(
                f"budget_usd={self.budget_usd:g} would be passed",
                got=f"{spent:.4f} spent, {in_flight} requests in flight at about {each:.4f} each",
                next_step="run the same command with a higher budget_usd; all that was paid for is kept",
            )

    def rows(self) -> dict[Key, Spending]:
        with self._lock:
            return dict(self._rows)

    def of(self, stage: str) -> dict[str, dict[str, int | float | None]]:
        """Role -> counters of one stage, as `metrics.json` has them."""
        return _by_role((key, row) for key, row in self.rows().items() if key[0] == stage)

    def totals(self) -> dict[str, dict[str, int | float | None]]:
        """Role -> counters of the whole run."""
        return _by_role(self.rows().items())


def _by_role(rows: Iterable[tuple[Key, Spending]]) -> dict[str, dict[str, int | float | None]]:
    sums: dict[str, Spending] = {}
    for (_, role, _), row in rows:
        sums[role] = sums.get(role, Spending()) + row
    return {role: asdict(row) for role, row in sums.items()}
