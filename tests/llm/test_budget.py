"""Reservations: what is spent and what requests in flight may cost never pass the budget together."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsrl.core.errors import BudgetReached
from dsrl.data.model import Usage
from dsrl.llm import Ledger, Price, RequestSize, Spending

KEY = ("generate", "teacher", "m")
PRICE = Price(input=1e6, output=1e6, date="2026-11-20")
"""One dollar a token."""
SIZE = RequestSize(prompt_characters=200, choices=1, max_tokens=100)
PROMPT = 50


def paid(output: int, completions: int = 1, prompt: int = PROMPT, price: Price = PRICE) -> Spending:
    usage = Usage(input_tokens=prompt, output_tokens=output)
    return Spending(
        requests=1, completions=completions, input_tokens=prompt, output_tokens=output, usd=price.cost(usage)
    )


async def ask(
    ledger: Ledger, reply: Callable[[int], int], number: int, size: RequestSize = SIZE, key: tuple[str, str, str] = KEY
) -> bool:
    try:
        async with ledger.reserve(key, size, PRICE) as reservation:
            await asyncio.sleep(0)
            reservation.settle(paid(reply(number), size.choices))
    except BudgetReached:
        return False
    return True


async def ask_all(ledger: Ledger, reply: Callable[[int], int], count: int, size: RequestSize = SIZE) -> int:
    return sum(await asyncio.gather(*(ask(ledger, reply, number, size) for number in range(count))))


def run(act: Awaitable[int]) -> int:
    async def inside() -> int:
        return await asyncio.wait_for(act, 30)

    return asyncio.run(inside())


@settings(max_examples=60, deadline=None)
@given(
    budget=st.integers(0, 3000),
    lengths=st.lists(st.integers(0, 100), min_size=1, max_size=60),
    in_dollars=st.booleans(),
    choices=st.integers(1, 4),
)
def test_replies_within_the_bound_never_pass_the_budget(
    budget: int, lengths: list[int], in_dollars: bool, choices: int
) -> None:
    """No completion after the first is longer than one and a half times the longest so far, plus the slack."""
    ledger = Ledger(budget_usd=float(budget)) if in_dollars else Ledger(budget_tokens=budget)
    size = RequestSize(200, choices, 100)
    longest = [0]

    def reply(number: int) -> int:
        bound = 100 if len(longest) == 1 else min(100, int(1.5 * max(longest)) + 32)
        longest.append(min(lengths[number], bound))
        return longest[-1] * choices

    run(ask_all(ledger, reply, len(lengths), size))
    spent = ledger.sums()
    first = PROMPT + longest[1] * choices if len(longest) > 1 else 0
    used = spent.usd if in_dollars else spent.input_tokens + spent.output_tokens
    assert used is not None
    assert used <= max(budget, first), "only the very first request may go by its prompt alone"


def test_all_of_a_budget_is_used_up_to_less_than_one_request() -> None:
    ledger = Ledger(budget_tokens=10_000)
    accepted = run(ask_all(ledger, lambda _: 20, 1000))
    used = ledger.sums().input_tokens + ledger.sums().output_tokens
    assert used == accepted * (PROMPT + 20)
    assert 10_000 - used < 76 + 62, "prompt and reply with their margins"


def test_requests_wait_for_those_in_flight_before_they_are_refused() -> None:
    """Each may cost 200, all of them cost 60: together they fit, though not at once."""
    assert run(ask_all(Ledger(budget_tokens=700), lambda _: 10, 10)) == 10


@pytest.mark.parametrize(
    ("budgets", "words"),
    [
        ({"budget_usd": 0.0}, "budget_usd=0 allows no request"),
        ({"budget_tokens": 0}, "budget_tokens=0 allows no request"),
        ({"budget_tokens": 100}, "budget_tokens=100 would be exceeded"),
        ({"budget_usd": 100.0, "budget_tokens": 10**9}, "budget_usd=100 would be exceeded"),
    ],
)
def test_a_refusal_says_which_budget_what_is_spent_and_how_to_go_on(budgets: dict[str, float], words: str) -> None:
    ledger = Ledger(**budgets)  # type: ignore[arg-type]

    async def until_refused() -> int:
        for _ in range(100):
            async with ledger.reserve(KEY, SIZE, PRICE) as reservation:
                reservation.settle(paid(40))
        return 100

    with pytest.raises(BudgetReached) as refused:
        run(until_refused())
    assert words in str(refused.value)
    assert f"higher {words.split('=')[0]}" in str(refused.value) or "above 0" in str(refused.value)
    assert refused.value.exit_code == 4


def test_a_small_budget_lets_the_first_request_go_alone() -> None:
    """100 choices of up to 1000 tokens may cost 100,050; they cost 150 and the next one is known to."""
    ledger, size = Ledger(budget_tokens=40_000), RequestSize(200, 100, 1000)
    assert run(ask_all(ledger, lambda _: 100, 3, size)) == 3
    assert run(ask_all(Ledger(budget_tokens=PROMPT), lambda _: 100, 3, size)) == 0, "not even its prompt fits"


def test_a_new_stage_s_first_request_goes_by_what_the_model_has_shown() -> None:
    ledger = Ledger(budget_tokens=420)
    rewrite = ("rewrite", "teacher", "m")
    assert run(ask_all(ledger, lambda _: 20, 4)) == 4
    assert not run(ask(ledger, lambda _: 20, 0, RequestSize(200, 2, 1000), rewrite)), "280 spent, up to 240 more"
    assert run(ask(ledger, lambda _: 20, 0, RequestSize(40, 1, 1000), rewrite)), "up to 98 more"


def test_replies_without_a_token_count_are_charged_at_their_bound() -> None:
    ledger = Ledger(budget_tokens=1000)

    async def silent(number: int) -> bool:
        try:
            async with ledger.reserve(KEY, SIZE, PRICE) as reservation:
                reservation.settle(Spending(requests=1, completions=1, usd=None))
        except BudgetReached:
            return False
        return True

    async def act() -> int:
        return sum([await silent(number) for number in range(20)])

    assert run(act()) == 4
    assert ledger.sums().usd is None


def test_requests_that_fail_give_their_room_back() -> None:
    ledger = Ledger(budget_tokens=500)

    async def act() -> int:
        for _ in range(50):
            with pytest.raises(ConnectionError):
                async with ledger.reserve(KEY, SIZE, PRICE):
                    raise ConnectionError
        return await ask_all(ledger, lambda _: 10, 2)

    assert run(act()) == 2


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_cancelled_ones_leave_nothing_behind(seed: int) -> None:
    rng, ledger = random.Random(seed), Ledger(budget_tokens=2000)

    async def act() -> int:
        tasks = [asyncio.ensure_future(ask(ledger, lambda _: 10, number)) for number in range(20)]
        for _ in range(rng.randrange(6)):
            await asyncio.sleep(0)
        for task in rng.sample(tasks, 10):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        budget = ledger._budget
        assert (budget.in_flight, budget.reserved.tokens, len(budget._waiting)) == (0, 0, 0)
        return 1

    assert run(act()) == 1


def test_threads_with_loops_of_their_own_share_one_budget() -> None:
    ledger = Ledger(budget_tokens=30_000)
    with ThreadPoolExecutor(4) as pool:
        accepted = sum(pool.map(lambda _: run(ask_all(ledger, lambda _: 30, 150)), range(4)))
    used = ledger.sums().input_tokens + ledger.sums().output_tokens
    assert used == accepted * 80
    assert 30_000 - 200 < used <= 30_000


def test_without_a_budget_nothing_waits() -> None:
    assert run(ask_all(Ledger(), lambda _: 10**6, 50)) == 50
