import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsrl.data.sample import Rejected, Sample, new_sample
from dsrl.pipeline.progress.progress import Task as ProgressTask
from dsrl.stages.generate.accept_until import OrderedResults, StopRule, accept_until
from dsrl.stages.generate.duplicates import DuplicateFilter

REJECT = -1
"""Stands for a rejected candidate; any other number is the text of its input, so equal numbers are duplicates."""


def outcome(number: int, fate: int) -> Sample | Rejected:
    if fate == REJECT:
        return Rejected(stage="generate", reason="no majority", input=f"candidate {number}")
    return new_sample("sums", f"Story {fate}", str(number), "initial")


def settled_one_by_one(fates: list[int], wanted: int) -> tuple[list[str], list[str], int]:
    """The expected outcome: accepted answers, reasons of the rejected ones, and how many were tried."""
    accepted: dict[int, str] = {}
    reasons = []
    for number, fate in enumerate(fates):
        if len(accepted) == wanted:
            return list(accepted.values()), reasons, number
        if fate == REJECT:
            reasons.append("no majority")
        elif fate in accepted:
            reasons.append("duplicate")
        else:
            accepted[fate] = str(number)
    return list(accepted.values()), reasons, len(fates)


async def run_candidates(
    wanted: int,
    most: int,
    window: int,
    attempt: Callable[[int], Awaitable[Sample | Rejected]],
    stop_rule: StopRule | None = None,
) -> tuple[OrderedResults, int]:
    results = OrderedResults("generate", stop_rule=stop_rule or StopRule())
    started = []

    async def counted(number: int) -> Sample | Rejected:
        started.append(number)
        return await attempt(number)

    await accept_until(wanted, most, window, counted, results, ProgressTask("generate", wanted))
    assert started == list(range(len(started)))
    return results, len(started)


@settings(deadline=None, max_examples=200)
@given(
    fates=st.lists(st.integers(REJECT, 8), max_size=40),
    wanted=st.integers(1, 12),
    window=st.integers(1, 16),
    seed=st.integers(0, 2**32),
)
def test_overlapping_calls_give_the_sequential_outcome(fates: list[int], wanted: int, window: int, seed: int) -> None:
    """Accepted set and order, rejections and their order, and the number of candidates tried."""
    rng = random.Random(seed)

    async def attempt(number: int) -> Sample | Rejected:
        for _ in range(rng.randrange(6)):
            await asyncio.sleep(0)
        return outcome(number, fates[number])

    results, tried = asyncio.run(run_candidates(wanted, len(fates), window, attempt))
    accepted, reasons, needed = settled_one_by_one(fates, wanted)
    assert [sample.answer for sample in results.accepted] == accepted
    assert [candidate.reason for candidate in results.rejected] == reasons
    assert (tried, results.num_resolved) == (needed, needed)


@pytest.mark.parametrize("slow_first", [True, False])
def test_the_lower_number_of_two_equal_inputs_is_accepted(slow_first: bool) -> None:
    async def attempt(number: int) -> Sample | Rejected:
        if slow_first == (number == 0):
            await asyncio.sleep(0.01)
        return outcome(number, 7)

    results, _ = asyncio.run(run_candidates(2, 2, 2, attempt))
    assert [sample.answer for sample in results.accepted] == ["0"]
    (refused,) = results.rejected
    assert (refused.reason, refused.answer, refused.input) == ("duplicate", "1", "Story 7")


def test_an_input_equal_to_a_known_sample_is_a_duplicate() -> None:
    results = OrderedResults("rewrite")
    results.add(0, outcome(0, 1))
    repeated = OrderedResults("rewrite", DuplicateFilter(samples=results.accepted))
    repeated.add(0, new_sample("sums", " story  1", "x", "harder"))
    assert repeated.accepted == []
    assert [candidate.reason for candidate in repeated.rejected] == ["duplicate"]


def test_a_slow_call_does_not_block_the_others() -> None:
    """Candidate 0 finishes last; all others are tried meanwhile."""
    others_done = asyncio.Event()
    finished = []

    async def attempt(number: int) -> Sample | Rejected:
        if number == 0:
            await others_done.wait()
        else:
            finished.append(number)
            if len(finished) == 9:
                others_done.set()
        return outcome(number, number)

    async def run() -> OrderedResults:
        return (await run_candidates(10, 40, 4, attempt))[0]

    results = asyncio.run(run())
    assert [sample.answer for sample in results.accepted] == [str(i) for i in range(10)]


@pytest.mark.parametrize("window", [1, 3, 8])
def test_the_number_in_flight_is_limited(window: int) -> None:
    flying = most = 0

    async def attempt(number: int) -> Sample | Rejected:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        await asyncio.sleep(0)
        flying -= 1
        return outcome(number, number)

    asyncio.run(run_candidates(5, 100, window, attempt))
    assert most == min(window, 5)


def test_an_exception_cancels_the_calls_in_flight() -> None:
    cancelled = []

    async def attempt(number: int) -> Sample | Rejected:
        if number == 2:
            raise RuntimeError("broken")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(number)
            raise
        raise AssertionError("unreachable")

    async def run() -> int:
        with contextlib.suppress(RuntimeError):
            await run_candidates(4, 10, 4, attempt)
        return len(asyncio.all_tasks()) - 1

    assert asyncio.run(run()) == 0
    assert sorted(cancelled) == [0, 1, 3]


@settings(deadline=None, max_examples=100)
@given(
    fates=st.lists(st.sampled_from([REJECT, 1, 1, 1, 2, 3]), min_size=30, max_size=160),
    window=st.integers(1, 40),
    seed=st.integers(0, 2**32),
    stop_rule=st.builds(StopRule, st.sampled_from([0.0, 0.02, 0.3]), st.sampled_from([None, 2, 5, 50])),
)
def test_the_stop_rule_ends_every_run_after_the_same_candidate(
    fates: list[int], window: int, seed: int, stop_rule: StopRule
) -> None:
    def run(window: int, delays: int) -> OrderedResults:
        rng = random.Random(seed)

        async def attempt(number: int) -> Sample | Rejected:
            for _ in range(rng.randrange(delays)):
                await asyncio.sleep(0)
            return outcome(number, fates[number])

        return asyncio.run(run_candidates(200, len(fates), window, attempt, stop_rule))[0]

    found, plain = run(window, 6), run(1, 1)
    assert (found.num_resolved, found.stop_reason, found.accepted) == (
        plain.num_resolved,
        plain.stop_reason,
        plain.accepted,
    )
    assert found.rejected == plain.rejected
    assert sum(found.reasons.values()) + len(found.accepted) == found.num_resolved
    if found.stop_reason is None:
        assert found.num_resolved == len(fates)


@pytest.mark.parametrize(
    ("settled", "accepted", "repeats", "lost"),
    [
        (51, 1, 50, "50 duplicates in a row"),
        (50, 1, 49, None),
        (99, 0, 0, None),
        (100, 1, 0, "1 of 100 candidates accepted, fewer than 0.02 of them"),
        (100, 2, 0, None),
        (1000, 19, 3, "19 of 1000 candidates accepted, fewer than 0.02 of them"),
    ],
)
def test_stop_rule(settled: int, accepted: int, repeats: int, lost: str | None) -> None:
    assert StopRule(0.02, 50).reason_to_stop(settled, accepted, repeats) == lost
    assert StopRule().reason_to_stop(settled, accepted, repeats) is None


def test_the_error_has_counts_an_example_and_a_next_step() -> None:
    async def attempt(number: int) -> Sample | Rejected:
        return outcome(number, REJECT if number == 3 else 7)

    results, tried = asyncio.run(run_candidates(500, 2000, 8, attempt, StopRule(0.02, 50)))
    assert results.num_resolved == 1 + 2 + 1 + 50
    assert tried <= results.num_resolved + 8
    said = str(results.failure(500, "do something else"))
    for words in (
        "generate: giving up after 54 candidates: 50 duplicates in a row",
        "1 of 500 accepted; 52 x duplicate, 1 x no majority",
        "duplicate, for example: Story 7",
        "do something else; what was paid for is kept",
    ):
        assert words in said
