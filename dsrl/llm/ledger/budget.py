"""Limits in dollars and tokens, enforced before a request is sent.

What is spent, what requests in flight may still cost and what the next request may cost must together fit.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from types import TracebackType
from typing import Self

from dsrl.core.errors import BudgetReached
from dsrl.data.model import Usage
from dsrl.llm.ledger.spending import MIN_SEEN, CostBound, Key, RequestSize, Spending
from dsrl.llm.price import Price

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Amount:
    """Dollars, as far as prices are known, and tokens."""

    usd: float = 0.0
    tokens: int = 0

    def __str__(self) -> str:
        return f"{self.tokens:,} tokens" + (f" (${self.usd:.4f})" if self.usd else "")

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.usd + other.usd, self.tokens + other.tokens)

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(self.usd - other.usd, self.tokens - other.tokens)


class Reservation:
    """A share of the budget for one HTTP request, for as long as it is in flight."""

    def __init__(self, budget: "Budget", key: Key, size: RequestSize, price: Price | None, batch: bool = False) -> None:
        self.key, self.size, self.price, self.batch = key, size, price, batch
        self.amount: Amount | None = None
        """None while it waits, and after it was released."""
        self.admitted: asyncio.Future[None] | None = None
        self._budget = budget

    async def __aenter__(self) -> Self:
        await self._budget.enter(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._budget.leave(self)

    def settle(self, spent: Spending, calls: tuple[str, ...] = ()) -> None:
        """Book the actual cost and learn reply lengths from it. Call it before the reservation is released.

        `calls`: ids of the completions; a later hit on one of them in this stage was paid for by this run.
        """
        self._budget.settle(self, spent, calls)

    def charge_worst_case(self) -> None:
        """Count a request that timed out at its worst case: the endpoint may bill it."""
        self._budget.charge_worst_case(self)


Book = Callable[[Key, Spending, tuple[str, ...]], None]


class Budget:
    """Admits requests in the order in which they ask. Thread-safe: stages have event loops of their own."""

    def __init__(self, usd: float | None, tokens: int | None, book: Book) -> None:
        self.usd, self.tokens = usd, tokens
        self.spent, self.reserved, self.in_flight = Amount(), Amount(), 0
        self._book = book
        self._bounds: dict[Key, CostBound] = {}
        self._waiting: deque[Reservation] = deque()
        self._split_warned: set[Key] = set()
        """Keys already warned about the budget splitting their batch jobs."""
        self._has_bounds = False
        """Whether `spent` contains worst cases of requests whose token counts are unknown."""
        self._lock = Lock()

    @property
    def is_limited(self) -> bool:
        return self.usd is not None or self.tokens is not None

    async def enter(self, reservation: Reservation) -> None:
        """Wait until the request fits. Raises `BudgetReached` if nothing is in flight and it still does not."""
        if not self.is_limited:
            return
        with self._lock:
            if not self._waiting and self._admit(reservation):
                return
            reservation.admitted = asyncio.get_running_loop().create_future()
            self._waiting.append(reservation)
            if reservation.batch and reservation.key not in self._split_warned:
                self._warn_split(reservation)
        try:
            await reservation.admitted
        except asyncio.CancelledError:
            with self._lock:
                if reservation in self._waiting:
                    self._waiting.remove(reservation)
                    self._admit_waiting()
                else:
                    self._release(reservation)
            raise

    def leave(self, reservation: Reservation) -> None:
        if self.is_limited:
            with self._lock:
                self._release(reservation)

    def settle(self, reservation: Reservation, spent: Spending, calls: tuple[str, ...]) -> None:
        self._book(reservation.key, spent, calls)
        if self.is_limited:
            with self._lock:
                self.spent += self._charge(reservation, spent)
                self._bound(reservation.key).learn(reservation.size, spent)

    def charge_worst_case(self, reservation: Reservation) -> None:
        with self._lock:
            if reservation.amount is not None:
                self.spent += reservation.amount
                self._has_bounds = True

    def _charge(self, reservation: Reservation, spent: Spending) -> Amount:
        """The actual cost; if the endpoint reports no tokens, the most that it may have billed."""
        tokens = spent.input_tokens + spent.output_tokens
        unknown = not tokens or (reservation.price is not None and spent.usd is None)
        if unknown and reservation.amount is not None:
            self._has_bounds = True
            return reservation.amount
        return Amount(spent.known_usd, tokens)

    def _admit(self, reservation: Reservation) -> bool:
        """Whether it fits now. Raises `BudgetReached` if it does not and nothing in flight can make room."""
        key, size = reservation.key, reservation.size
        worst = self._amount(reservation, self._bound(key).reply(size))
        if not self._fits(worst):
            if self.in_flight:
                return False
            # before enough replies were seen, one request may go alone by what any stage has seen of this model
            guess = max(bound.guess(size) for other, bound in self._bounds.items() if other[2] == key[2])
            learning = self._bound(key).completions < MIN_SEEN
            if self.usd == 0 or self.tokens == 0 or not learning or not self._fits(self._amount(reservation, guess)):
                raise self._reached(worst)
        reservation.amount = worst
        self.reserved += worst
        self.in_flight += 1
        return True

    def _fits(self, amount: Amount) -> bool:
        total = self.spent + self.reserved + amount
        return (self.usd is None or total.usd <= self.usd) and (self.tokens is None or total.tokens <= self.tokens)

    def _amount(self, reservation: Reservation, reply_tokens: int) -> Amount:
        prompt_tokens = self._bound(reservation.key).prompt(reservation.size)
        usage = Usage(input_tokens=prompt_tokens, output_tokens=reply_tokens)
        usd = reservation.price.cost(usage, reservation.batch) if reservation.price is not None else 0.0
        return Amount(usd, prompt_tokens + reply_tokens)

    def _bound(self, key: Key) -> CostBound:
        return self._bounds.setdefault(key, CostBound())

    def _release(self, reservation: Reservation) -> None:
        if reservation.amount is None:
            return
        self.in_flight -= 1
        self.reserved = self.reserved - reservation.amount if self.in_flight else Amount()
        reservation.amount = None
        self._admit_waiting()

    def _admit_waiting(self) -> None:
        """Admit from the front as many as fit; one that never will is woken with the error, then those behind it."""
        while self._waiting:
            reservation = self._waiting[0]
            try:
                if not self._admit(reservation):
                    return
                refusal = None
            except BudgetReached as error:
                refusal = error
            self._waiting.popleft()
            _wake(reservation, refusal)

    def _warn_split(self, reservation: Reservation) -> None:
        """Warn before the job is submitted, because each further job may take a day."""
        key = reservation.key
        self._split_warned.add(key)
        worst = self._amount(reservation, self._bound(key).reply(reservation.size))
        setting = f"budget_usd={self.usd:g}" if self._exceeds_usd(worst) else f"budget_tokens={self.tokens}"
        log.warning(
            "%s has room for only %d requests of %s at once, by their worst-case cost (the next one %s, with "
            "max_tokens=%d): the others go into a later batch job; a higher budget or a lower max_tokens makes it one",
            *(setting, self.in_flight, key[0] or key[2], worst, reservation.size.max_tokens),
        )

    def _reached(self, cost: Amount) -> BudgetReached:
        setting, limit = ("budget_usd", self.usd) if self._exceeds_usd(cost) else ("budget_tokens", self.tokens)
        if limit == 0:
            return BudgetReached(
                f"{setting}=0 allows no request, but a reply is needed that is not cached",
                next_step=f"set {setting} above 0, or {setting}=null for no limit",
            )
        bounds = ", counting requests without token counts at their maximum" if self._has_bounds else ""
        resume = f"run the same command to go on (each run has the whole budget), or raise {setting}"
        return BudgetReached(
            f"{setting}={limit:g} would be exceeded by the next request",
            got=f"{self.spent} spent{bounds}, the next request may cost {cost}",
            next_step=f"{resume}; all replies paid for are kept"
            if self.spent.tokens
            else f"set a higher {setting}, or bound replies by a lower max_tokens",
        )

    def _exceeds_usd(self, cost: Amount) -> bool:
        return self.usd is not None and (self.usd == 0 or (self.spent + self.reserved + cost).usd > self.usd)


def _wake(reservation: Reservation, refusal: BudgetReached | None) -> None:
    """Resolve the reservation's future in the event loop that awaits it."""
    future = reservation.admitted
    assert future is not None

    def resolve() -> None:
        if future.done():
            return
        if refusal is None:
            future.set_result(None)
        else:
            future.set_exception(refusal)

    future.get_loop().call_soon_threadsafe(resolve)
