"""A budget over real HTTP: what is spent, what is kept, and what a resumed run adds to it."""

import asyncio
from pathlib import Path

import pytest

from dsrl.core.errors import BudgetReached
from dsrl.data.model import Reply
from dsrl.llm import Client, Endpoint, Ledger, Price, ReplyCache
from dsrl.pipeline.context import Context
from dsrl.pipeline.progress.progress import Task
from tests.llm.server import serve

KEY = ("votes", "teacher", "m")
QUESTIONS = [f"question {number}" for number in range(60)]
PRICE = Price(input=1.0, cached_input=1.0, output=2.0, date="2026-11-20")


def run(described: Endpoint, folder: Path, ledger: Ledger) -> list[Reply]:
    async def inside() -> list[Reply]:
        async with Client(described, ReplyCache(folder), ledger, role="teacher", stage="votes") as client:
            asked = (described.request([{"role": "user", "content": content}]) for content in QUESTIONS)
            return [replies[0] for replies in await asyncio.gather(*map(client.complete, asked))]

    return asyncio.run(inside())


@pytest.mark.parametrize("budget", [{"budget_tokens": 400}, {"budget_usd": 500e-6}])
def test_runs_stop_before_the_budget_and_together_pay_once(tmp_path: Path, budget: dict[str, float]) -> None:
    with serve() as script:
        described = Endpoint(model="m", base_url=script.url, price=PRICE, concurrency=8, max_tokens=64, backoff=0.0)
        whole = Ledger()
        expected = run(described, tmp_path / "whole", whole)
        spent, ledgers = [], []
        for _ in range(20):
            ledgers.append(Ledger(**budget))  # type: ignore[arg-type]
            try:
                replies = run(described, tmp_path / "parts", ledgers[-1])
                break
            except BudgetReached:
                spent.append(ledgers[-1].sums())
    assert replies == expected
    assert len(spent) > 1
    for row in spent:
        assert 0 < row.input_tokens + row.output_tokens <= budget.get("budget_tokens", 10**9)
        assert row.usd is not None
        assert row.usd <= budget.get("budget_usd", 10**9)
    paid, last = sum((ledger.sums() for ledger in ledgers[1:]), ledgers[0].sums()), ledgers[-1].sums()
    assert paid.completions == whole.sums().completions == last.completions + last.hit_completions
    assert paid.usd == pytest.approx(whole.sums().usd)
    assert last.usd is not None
    assert last.hit_usd is not None
    assert last.usd + last.hit_usd == pytest.approx(whole.sums().usd)


def test_nothing_is_sent_with_a_budget_of_zero_but_what_is_stored_serves(tmp_path: Path) -> None:
    with serve() as script:
        described = Endpoint(model="m", base_url=script.url, price=PRICE)
        with pytest.raises(BudgetReached, match="budget_tokens=0 allows no request"):
            run(described, tmp_path, Ledger(budget_tokens=0))
        assert script.bodies == []
        expected = run(described, tmp_path, Ledger())
        assert run(described, tmp_path, Ledger(budget_tokens=0)) == expected


def test_whoever_connects_is_shown_with_the_cost_of_its_stage(context: Context) -> None:
    async def ask(described: Endpoint) -> None:
        async with context.connect(described, "teacher") as client:
            await client.complete(described.request([{"role": "user", "content": context.stage}]))

    with serve() as script:
        described = Endpoint(model="m", base_url=script.url, price=PRICE)
        for stage in ("generate", "rewrite"):
            context.begin(stage)
            asyncio.run(ask(described))
    view = context.progress.snapshot(Task("rewrite", 1))
    assert view.spent is not None
    assert (view.spent.requests, view.spent.input_tokens) == (1, 10)
    assert [traffic.requests for traffic in view.traffic] == [1]
    assert context.ledger.sums().requests == 2
