import asyncio
from collections.abc import Callable, Coroutine

from dsrl.llm.ratelimit.limiter import CLOSE_AFTER, RESTART_LIMIT, Limiter, Slot


def run(act: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(act())


async def hold(limiter: Limiter, order: list[int], name: int, ends: asyncio.Event, number: int = 0) -> None:
    slot = await limiter.acquire(number)
    order.append(name)
    await ends.wait()
    limiter.release(slot)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def now() -> float:
    return asyncio.get_running_loop().time()


async def take(limiter: Limiter, count: int) -> list[Slot]:
    return [await limiter.acquire() for _ in range(count)]


def test_never_more_than_the_ceiling_and_in_order_of_asking() -> None:
    async def act() -> None:
        limiter, order, ends = Limiter(2), [], asyncio.Event()
        tasks = [asyncio.create_task(hold(limiter, order, name, ends)) for name in range(5)]
        await settle()
        assert (order, limiter.in_flight, limiter.waiting) == ([0, 1], 2, 3)
        ends.set()
        await asyncio.gather(*tasks)
        assert (order, limiter.in_flight) == ([0, 1, 2, 3, 4], 0)

    run(act)


def test_smaller_numbers_go_first() -> None:
    async def act() -> None:
        limiter, order, ends = Limiter(1), [], asyncio.Event()
        numbers = [5, 4, 9, 4, 0]
        tasks = [asyncio.create_task(hold(limiter, order, name, ends, number)) for name, number in enumerate(numbers)]
        await settle()
        ends.set()
        await asyncio.gather(*tasks)
        assert order == [0, 4, 1, 3, 2]

    run(act)


def test_a_cancelled_waiter_takes_no_slot_along() -> None:
    async def act() -> None:
        limiter, order, ends = Limiter(1), [], asyncio.Event()
        tasks = [asyncio.create_task(hold(limiter, order, name, ends)) for name in range(4)]
        await settle()
        tasks[1].cancel()
        ends.set()
        await settle()
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert limiter.in_flight == 0
        async with asyncio.timeout(5):
            await limiter.acquire()

    run(act)


def test_a_slot_given_in_the_moment_of_cancelling_is_given_back() -> None:
    async def act() -> None:
        limiter = Limiter(1)
        (first,) = await take(limiter, 1)
        waiter = asyncio.create_task(limiter.acquire())
        await settle()
        limiter.release(first)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        assert limiter.in_flight == 0

    run(act)


def test_the_level_found_is_what_was_in_flight_beside_those_turned_away() -> None:
    async def act() -> None:
        limiter = Limiter(128)
        limiter.concurrency.restart(32)
        slots = await take(limiter, 32)
        for slot in slots[20:]:
            limiter.refused(slot, 1.0)
            limiter.release(slot)
        assert (limiter.limit, limiter.in_flight) == (20, 20)

    run(act)


def test_one_refusal_among_successes_is_forgiven() -> None:
    async def act() -> None:
        limiter = Limiter(16)
        for _ in range(5):
            slots = await take(limiter, 16)
            limiter.refused(slots[0], 1.0)
            limiter.release(slots[0])
            (later,) = await take(limiter, 1)
            for slot in [*slots[1:], later]:
                limiter.succeeded(slot)
                limiter.release(slot)
        assert limiter.limit == 16

    run(act)


def test_an_endpoint_that_admits_nothing_is_left_alone_as_long_as_it_asks() -> None:
    async def act() -> None:
        limiter = Limiter(16)
        slots = await take(limiter, 3)
        for slot in slots:
            limiter.refused(slot, 0.2)
            limiter.release(slot)
        last = now()
        slot = await limiter.acquire()
        assert slot.granted_at - last >= 0.18
        assert limiter.limit == RESTART_LIMIT

    run(act)


def test_an_endpoint_that_turns_away_what_comes_beside_old_work_is_left_alone_too() -> None:
    async def act() -> None:
        limiter = Limiter(16)
        await take(limiter, 2)
        asked = 0
        while limiter.in_flight == 2 and asked < 50:
            (slot,) = await take(limiter, 1)
            limiter.refused(slot, 60.0)
            limiter.concurrency.restart()
            limiter.release(slot)
            asked += 1
            if limiter._closed_until:
                break
        assert asked == CLOSE_AFTER + 1

    run(act)


def test_an_endpoint_that_is_down_gets_one_request_at_a_time_until_a_success() -> None:
    async def act() -> None:
        limiter, order, ends = Limiter(8), [], asyncio.Event()
        old = await take(limiter, 3)
        limiter.probe_after(0.05)
        tasks = [asyncio.create_task(hold(limiter, order, name, ends)) for name in range(4)]
        await settle()
        assert order == []
        await asyncio.sleep(0.1)
        assert (order, limiter.limit) == ([0], 1)
        limiter.succeeded(old[0])
        limiter.release(old[0])
        await settle()
        assert order == [0, 1, 2, 3]
        ends.set()
        await asyncio.gather(*tasks)

    run(act)


def test_requests_per_minute_are_spread_evenly() -> None:
    async def act() -> None:
        limiter = Limiter(1000, first=1000, rpm=6000)
        start = now()
        slots = await take(limiter, 130)
        assert slots[99].granted_at - start < 0.2
        assert slots[-1].granted_at - start >= 0.25

    run(act)


def test_tokens_per_minute_count_what_came_and_not_what_was_feared() -> None:
    async def act() -> None:
        limiter = Limiter(10, tpm=6000)
        slot = await limiter.acquire(tokens=1000)
        limiter.release(slot, 50)
        start = now()
        slot = await limiter.acquire(tokens=50)
        assert slot.granted_at - start < 0.1
        limiter.release(slot, 70)
        assert (await limiter.acquire(tokens=50)).granted_at - start >= 0.15

    run(act)
