from collections.abc import Callable

from dsrl.llm.ratelimit.limiter import INITIAL_LIMIT, MAX_HOLD, AdaptiveConcurrency


def round_of(level: AdaptiveConcurrency, now: float, waiting: int = 1000) -> None:
    """As many successes as there may be requests in flight."""
    for _ in range(level.limit):
        level.succeeded(now, waiting)


def test_slow_start_doubles_up_to_the_ceiling() -> None:
    level = AdaptiveConcurrency(200)
    limits = [level.limit]
    for _ in range(4):
        round_of(level, 0.0)
        limits.append(level.limit)
    assert limits == [32, 64, 128, 200, 200]
    assert AdaptiveConcurrency(4).limit == 4


def test_nothing_grows_while_nobody_waits() -> None:
    level = AdaptiveConcurrency(100)
    round_of(level, 0.0, waiting=0)
    assert level.limit == INITIAL_LIMIT


def served(
    level: AdaptiveConcurrency, capacity: Callable[[float], int], until: float, seconds: float = 0.2
) -> tuple[float, int]:
    """A crowd before a server with so much room, success by success: (share of its room that was used, refusals)."""
    now, used, room, refusals = 0.0, 0.0, 0.0, 0
    while now < until:
        bears = capacity(now)
        passed = seconds / min(level.limit, bears)
        now, used, room = now + passed, used + passed * min(level.limit, bears), room + passed * bears
        level.succeeded(now, 1000)
        while level.limit > bears:
            level.refused(now, level.limit - 1)
            refusals += 1
    return used / room, refusals


def test_a_bound_is_found_and_held_with_few_refusals() -> None:
    share, refusals = served(AdaptiveConcurrency(128), lambda now: 20, until=60.0)
    assert share > 0.98
    assert refusals < 60 / MAX_HOLD + 30


def test_a_bound_that_changes_is_followed() -> None:
    share, _ = served(AdaptiveConcurrency(128), lambda now: 20 if now < 20 else 100 if now < 40 else 10, until=60.0)
    assert share > 0.85


def test_no_bound_below_one() -> None:
    level = AdaptiveConcurrency(8)
    level.refused(0.0, 0)
    assert level.limit == 1
