"""A run's bounds in dollars and tokens, kept before a request is sent: what is spent, what requests in flight may still
cost, and what the next one may cost must fit together."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Self

from dsrl.core.errors import BudgetReached
from dsrl.data.model import Usage
from dsrl.llm.ledger.cost_bound import ENOUGH_SEEN, Habit, Size
from dsrl.llm.ledger.spending import Key, Spending

if TYPE_CHECKING:
    from dsrl.llm.endpoint import Price

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
    """Room in the budget for one HTTP request, held while it is under way."""

    def __init__(self, budget: "Budget", key: Key, size: Size, price: "Price | None", batch: bool = False) -> None:
        self.key, self.size, self.price, self.batch = key, size, price, batch
        self.held: Amount | None = None
        self.turn: asyncio.Future[None] | None = None
        self._budget = budget

    async def __aenter__(self) -> Self:
        await self._budget.enter(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._budget.leave(self)

    def settle(self, spent: Spending, calls: tuple[str, ...] = ()) -> None:
        """Books what came, and learns from it how long replies are. Called before the room is given back.

        `calls`: ids of the completions; if one is asked for again in this stage, the hit was paid by this run.
        """
        self._budget.settle(self, spent, calls)


Book = Callable[[Key, Spending, tuple[str, ...]], None]


class Budget:
    """Requests enter in the order of asking. Safe in threads: stages have event loops of their own."""

    def __init__(self, usd: float | None, tokens: int | None, book: Book) -> None:
        self.usd, self.tokens = usd, tokens
        self.spent, self.reserved, self.in_flight = Amount(), Amount(), 0
        self._book = book
        self._habits: dict[Key, Habit] = {}
        self._waiting: deque[Reservation] = deque()
        self._cut: set[Key] = set()
        """Of whom it was said that the budget cuts their batches."""
        self._lock = Lock()

    @property
    def bounded(self) -> bool:
        return self.usd is not None or self.tokens is not None

    async def enter(self, asked: Reservation) -> None:
        if not self.bounded:
            return
        with self._lock:
            if not self._waiting and self._admitted(asked):
                return
            asked.turn = asyncio.get_running_loop().create_future()
            self._waiting.append(asked)
            if asked.batch and asked.key not in self._cut:
                self._say_cut(asked)
        try:
            await asked.turn
        except asyncio.CancelledError:
            self._give_up(asked)
            raise

    def leave(self, asked: Reservation) -> None:
        if not self.bounded:
            return
        with self._lock:
            self._release(asked)

    def settle(self, asked: Reservation, spent: Spending, calls: tuple[str, ...]) -> None:
        self._book(asked.key, spent, calls)
        if not self.bounded:
            return
        with self._lock:
            self.spent += self._charge(asked, spent)
            self._habit(asked.key).learn(asked.size, spent)

    def _charge(self, asked: Reservation, spent: Spending) -> Amount:
        """What came; an endpoint that doesn't say its tokens is charged the most that it may have billed."""
        tokens = spent.input_tokens + spent.output_tokens
        unsaid = not tokens or (asked.price is not None and spent.usd is None)
        if spent.completions and unsaid and asked.held is not None:
            return asked.held
        return Amount(spent.known_usd, tokens)

    def _admitted(self, asked: Reservation) -> bool:
        """Whether it is let in. Raises `BudgetReached` for one that nothing under way could make room for."""
        most = self._amount(asked, self._habit(asked.key).reply(asked.size))
        if not self._fits(most):
            if self.in_flight:
                return False
            least = self._amount(asked, self._guess(asked))
            if self.usd == 0 or self.tokens == 0 or not self._learning(asked.key) or not self._fits(least):
                raise self._reached(most)
        asked.held = most
        self.reserved += most
        self.in_flight += 1
        return True

    def _fits(self, amount: Amount) -> bool:
        total = self.spent + self.reserved + amount
        return (self.usd is None or total.usd <= self.usd) and (self.tokens is None or total.tokens <= self.tokens)

    def _learning(self, key: Key) -> bool:
        """Too little was seen for a bound below `max_tokens`: one request may go alone, by what is known so far."""
        return self._habit(key).completions < ENOUGH_SEEN

    def _guess(self, asked: Reservation) -> int:
        """By all that the model has shown in any stage."""
        habits = [habit for key, habit in self._habits.items() if key[2] == asked.key[2]]
        return max(habit.guess(asked.size) for habit in habits)

    def _amount(self, asked: Reservation, reply: int) -> Amount:
        usage = Usage(input_tokens=self._habit(asked.key).prompt(asked.size), output_tokens=reply)
        usd = asked.price.cost(usage, asked.batch) if asked.price is not None else 0.0
        return Amount(usd, usage.input_tokens + usage.output_tokens)

    def _habit(self, key: Key) -> Habit:
        return self._habits.setdefault(key, Habit())

    def _release(self, asked: Reservation) -> None:
        if asked.held is None:
            return
        self.in_flight -= 1
        self.reserved = self.reserved - asked.held if self.in_flight else Amount()
        asked.held = None
        self._admit_waiting()

    def _admit_waiting(self) -> None:
        """From the first on, as many as fit; one that never will is told so, as are those behind it in their turn."""
        while self._waiting:
            asked = self._waiting[0]
            try:
                if not self._admitted(asked):
                    return
                refusal = None
            except BudgetReached as error:
                refusal = error
            self._waiting.popleft()
            _tell(asked, refusal)

    def _give_up(self, asked: Reservation) -> None:
        with self._lock:
            if asked in self._waiting:
                self._waiting.remove(asked)
                self._admit_waiting()
            else:
                self._release(asked)

    def _say_cut(self, asked: Reservation) -> None:
        """Before the job is submitted: each further one may take a day."""
        self._cut.add(asked.key)
        most = self._amount(asked, self._habit(asked.key).reply(asked.size))
        log.warning(
            "%s has room for %d requests of %s at once, by the most that they may cost (the next one %s, with "
            "max_tokens=%d): the others go into a later batch job; a higher budget or a lower max_tokens makes it one",
            *(self._dial(most), self.in_flight, asked.key[0] or asked.key[2], most, asked.size.max_tokens),
        )

    def _dial(self, cost: Amount) -> str:
        return f"budget_usd={self.usd:g}" if self._passes_usd(cost) else f"budget_tokens={self.tokens}"

    def _reached(self, cost: Amount) -> BudgetReached:
        dial, budget = ("budget_usd", self.usd) if self._passes_usd(cost) else ("budget_tokens", self.tokens)
        if budget == 0:
            return BudgetReached(
                f"{dial}=0 allows no request, and one is needed that the store can't answer",
                next_step=f"give {dial} above 0, or {dial}=null for no bound",
            )
        again = f"run the same command to go on (each run has the whole budget), with a higher {dial} to get further"
        return BudgetReached(
            f"{dial}={budget:g} would be passed by the next request",
            got=f"{self.spent} spent, the next request may cost {cost}",
            next_step=f"{again}; all that was paid for is kept"
            if self.spent.tokens
            else f"give a higher {dial}, or bound replies by a lower max_tokens",
        )

    def _passes_usd(self, cost: Amount) -> bool:
        return self.usd is not None and (self.usd == 0 or (self.spent + self.reserved + cost).usd > self.usd)


def _tell(asked: Reservation, refusal: BudgetReached | None) -> None:
    """Wakes whoever waits, in the event loop in which it does."""
    assert asked.turn is not None
    asked.turn.get_loop().call_soon_threadsafe(_settle_turn, asked.turn, refusal)


def _settle_turn(turn: "asyncio.Future[None]", refusal: BudgetReached | None) -> None:
    if turn.done():
        return
    if refusal is None:
        turn.set_result(None)
    else:
        turn.set_exception(refusal)
