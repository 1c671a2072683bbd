from typing import Any

import pytest

from dsrl.llm import Spending
from dsrl.pipeline.cost import book, per_sample, total_cost

PAID = {"completions": 10, "input_tokens": 100, "cached_tokens": 20, "output_tokens": 50}


@pytest.mark.parametrize(
    ("spending", "expected"),
    [
        (Spending(requests=4, usd=0.5, **PAID), {"requests": 4, "usd": 0.5, **PAID}),
        (
            Spending(requests=4, usd=0.5, hit_completions=5, hit_input_tokens=50, hit_usd=0.25, **PAID),
            {"requests": None, "usd": 0.75, **PAID, "completions": 15, "input_tokens": 150},
        ),
        (Spending(requests=4, usd=0.5, hit_completions=5, hit_usd=None), {"usd": None}),
        (Spending(requests=4, usd=None, known_usd=0.5), {"usd": None}),
    ],
)
def test_a_result_costs_what_anybody_paid_for_it(spending: Spending, expected: dict[str, Any]) -> None:
    assert total_cost(spending.counters()).items() >= expected.items()


def test_an_entry_of_an_earlier_version_has_no_hits() -> None:
    old = {"requests": 3, "completions": 3, "input_tokens": 9, "output_tokens": 2, "usd": 0.5}
    assert total_cost(old) == {**old, "cached_tokens": None}


def test_a_sample_s_share_is_of_the_teacher_s_stages() -> None:
    metrics: dict[str, Any] = {}
    paid = Spending(requests=4, usd=0.5, **PAID).counters()
    book(metrics, "generate", {"teacher": paid}, {"teacher": paid})
    book(metrics, "rewrite", {}, {"teacher": paid})
    book(metrics, "score", {"model": paid}, {"model": paid})
    assert metrics["calls_by_stage"]["rewrite"] == {}
    found = per_sample(metrics, 8)
    assert (found["samples"], found["requests"], found["usd"], found["completions"]) == (8, 1.0, 0.125, 2.5)
    assert per_sample(metrics, 0) == per_sample({}, 8) == {}


def test_a_share_with_an_unknown_part_is_unknown() -> None:
    metrics: dict[str, Any] = {}
    for stage, usd in (("generate", 0.5), ("rewrite", None)):
        paid = Spending(requests=4, usd=usd, **PAID).counters()
        book(metrics, stage, {"teacher": paid}, {"teacher": paid})
    assert per_sample(metrics, 8)["usd"] is None
