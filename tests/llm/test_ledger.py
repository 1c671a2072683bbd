from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsrl.data.model import Reply, Usage
from dsrl.llm import Ledger, Price, RequestSize, Spending

GENERATE, JUDGE, SCORE = ("generate", "teacher", "a"), ("generate", "teacher", "b"), ("score", "model", "c")
PRICE = Price(input=1.0, cached_input=0.5, output=2.0, date="2026-11-20")

counts = st.integers(0, 1000)
dollars = st.none() | st.integers(0, 1000).map(lambda cents: cents / 4)
spendings = st.builds(Spending, requests=counts, output_tokens=counts, usd=dollars, hit_usd=dollars)


def test_sums_by_stage_and_role() -> None:
    ledger = Ledger()
    ledger.add(GENERATE, Spending(requests=2, output_tokens=5, usd=0.25))
    ledger.add(JUDGE, Spending(requests=1, usd=0.5))
    ledger.add(SCORE, Spending(store_hits=4, usd=None))
    found = ledger.of("generate")["teacher"]
    assert (found["requests"], found["usd"], found["output_tokens"]) == (3, 0.75, 5)
    assert ledger.of("select") == {}
    assert set(ledger.totals()) == {"teacher", "model"}
    assert ledger.sums().requests == 3
    assert ledger.sums("score").store_hits == 4


def test_an_unknown_price_is_never_zero_and_makes_the_sum_unknown() -> None:
    ledger = Ledger()
    ledger.add(GENERATE, Spending(usd=1.0))
    ledger.add(JUDGE, Spending(requests=1, usd=None))
    assert ledger.totals()["teacher"]["usd"] is None
    assert ledger.totals()["teacher"]["known_usd"] == 1.0
    assert ledger.rows()[GENERATE].usd == 1.0


@given(spendings, spendings)
def test_a_difference_is_what_was_added(before: Spending, more: Spending) -> None:
    total = before + more
    if before.usd is not None and before.hit_usd is not None:
        assert total - before == more
    assert (total.usd is None) == (before.usd is None or more.usd is None)
    assert total.known_usd == (before.usd or 0.0) + (more.usd or 0.0)


def test_a_round_counts_only_its_own_calls() -> None:
    ledger = Ledger()
    ledger.add(GENERATE, Spending(requests=2, usd=0.5))
    ledger.begin("generate")
    assert ledger.of("generate") == {}
    ledger.add(GENERATE, Spending(requests=3, usd=0.25))
    ledger.add(JUDGE, Spending(requests=1))
    found = ledger.of("generate")["teacher"]
    assert (found["requests"], found["usd"]) == (4, 0.25)
    assert ledger.totals()["teacher"]["requests"] == 6


def replies(*indices: int) -> list[Reply]:
    usage = Usage(input_tokens=10, cached_tokens=4, output_tokens=3)
    return [Reply(text="x", call=f"digest:{index}", usage=usage) for index in indices]


def test_a_hit_s_worth_counts_once_a_stage() -> None:
    ledger = Ledger()
    ledger.reuse(GENERATE, replies(0, 1), PRICE)
    ledger.reuse(GENERATE, replies(1, 2), PRICE)
    row = ledger.rows()[GENERATE]
    assert (row.store_hits, row.hit_input_tokens, row.hit_cached_tokens, row.hit_output_tokens) == (4, 30, 12, 9)
    assert row.hit_usd == pytest.approx((18 + 12 * 0.5 + 9 * 2) / 1e6)
    assert row.usd == 0.0
    ledger.reuse(SCORE, replies(0), PRICE)
    assert ledger.rows()[SCORE].hit_output_tokens == 3


def test_what_this_run_paid_is_no_hit_of_an_earlier_one() -> None:
    ledger = Ledger()
    reservation = ledger.reserve(GENERATE, RequestSize(100), PRICE)
    reservation.settle(Spending(requests=1, completions=1), ("digest:0",))
    ledger.reuse(GENERATE, replies(0, 1), PRICE)
    assert ledger.rows()[GENERATE].hit_output_tokens == 3


@pytest.mark.parametrize(("price", "found", "worth"), [(None, replies(0), None), (None, [], 0.0), (PRICE, [], 0.0)])
def test_a_hit_s_worth_is_unknown_without_a_price(price: Price | None, found: list[Reply], worth: float | None) -> None:
    ledger = Ledger()
    ledger.reuse(GENERATE, found, price)
    assert ledger.rows()[GENERATE].hit_usd == worth
    assert ledger.rows()[GENERATE].usd == 0.0


def test_watchers_see_each_new_sum() -> None:
    ledger, seen = Ledger(), []
    ledger.watch(lambda key, row: seen.append((key, row.requests)))
    for _ in range(3):
        ledger.add(SCORE, Spending(requests=1))
    assert seen == [(SCORE, 1), (SCORE, 2), (SCORE, 3)]


def test_threads_lose_nothing() -> None:
    ledger = Ledger()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: ledger.add(SCORE, Spending(requests=1)), range(2000)))
    assert ledger.rows()[SCORE].requests == 2000


def test_price_counts_cached_tokens_once() -> None:
    usage = Usage(input_tokens=1_000_000, cached_tokens=400_000, output_tokens=100_000)
    assert Price(input=2.0, cached_input=0.5, output=10.0, date="2026-11-20").cost(usage) == 1.2 + 0.2 + 1.0
    assert Price(input=2.0, output=10.0, date="2026-11-20").cost(usage) == 3.0
