from concurrent.futures import ThreadPoolExecutor

from dsrl.llm import Ledger, Price, Spending
from dsrl.model import Usage

GENERATE, JUDGE, SCORE = ("generate", "teacher", "a"), ("generate", "teacher", "b"), ("score", "model", "c")


def test_sums_by_stage_and_role() -> None:
    ledger = Ledger()
    ledger.add(GENERATE, Spending(requests=2, output_tokens=5, usd=0.25))
    ledger.add(JUDGE, Spending(requests=1, usd=0.5))
    ledger.add(SCORE, Spending(store_hits=4, usd=None))
    assert (
        ledger.of("generate")["teacher"] | {"requests": 3, "usd": 0.75, "output_tokens": 5}
        == ledger.of("generate")["teacher"]
    )
    assert ledger.of("select") == {}
    assert set(ledger.totals()) == {"teacher", "model"}


def test_an_unknown_price_is_never_zero_and_makes_the_sum_unknown() -> None:
    ledger = Ledger()
    ledger.add(GENERATE, Spending(usd=1.0))
    ledger.add(JUDGE, Spending(requests=1, usd=None))
    assert ledger.totals()["teacher"]["usd"] is None
    assert ledger.rows()[GENERATE].usd == 1.0


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
