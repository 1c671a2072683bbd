import asyncio

from dsrl.llm.limiter import Limiter


async def hold(limiter: Limiter, order: list[int], name: int, ends: asyncio.Event) -> None:
    async with limiter.slot():
        order.append(name)
        await ends.wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_never_more_than_the_ceiling_and_in_order_of_asking() -> None:
    async def run() -> None:
        limiter, order, ends = Limiter(2), [], asyncio.Event()
        tasks = [asyncio.create_task(hold(limiter, order, name, ends)) for name in range(5)]
        await settle()
        assert (order, limiter.in_flight) == ([0, 1], 2)
        ends.set()
        await asyncio.gather(*tasks)
        assert (order, limiter.in_flight) == ([0, 1, 2, 3, 4], 0)

    asyncio.run(run())


def test_a_cancelled_waiter_takes_no_slot_along() -> None:
    async def run() -> None:
        limiter, order, ends = Limiter(1), [], asyncio.Event()
        tasks = [asyncio.create_task(hold(limiter, order, name, ends)) for name in range(3)]
        await settle()
        tasks[1].cancel()
        ends.set()
        limiter._release()
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        limiter.in_flight += 1
        assert limiter.in_flight == 0
        async with asyncio.timeout(5), limiter.slot():
            assert limiter.in_flight == 1

    asyncio.run(run())


def test_one_cut_for_all_who_were_sent_before_it_and_slow_growth() -> None:
    async def run() -> None:
        limiter = Limiter(16)
        limiter.in_flight = 16
        sent = asyncio.get_running_loop().time()
        limiter.throttled(sent, 1.0)
        await asyncio.sleep(0.001)
        limiter.throttled(sent, 1.0)
        assert limiter.limit == 8
        for _ in range(8):
            limiter.succeeded()
        assert 8.9 < limiter.limit <= 9
        for _ in range(500):
            limiter.succeeded()
        assert limiter.limit == 16

    asyncio.run(run())


def test_an_endpoint_that_admits_nothing_is_left_alone_as_long_as_it_asks() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        limiter = Limiter(4)
        limiter.throttled(loop.time(), 0.2)
        await asyncio.sleep(0.001)
        second = loop.time()
        limiter.throttled(second, 0.2)
        async with limiter.slot() as taken:
            assert taken - second >= 0.18
        assert limiter.limit == 1.0

    asyncio.run(run())
