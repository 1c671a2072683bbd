from hypothesis import given
from hypothesis import strategies as st

from dsrl.llm.ratelimit.limiter import TokenBucket


@given(st.lists(st.floats(0.0, 5.0), min_size=1, max_size=60), st.floats(1.0, 10_000.0))
def test_never_more_than_the_ceiling_and_a_second_of_it(gaps: list[float], per_minute: float) -> None:
    rate, now = TokenBucket(per_minute), 0.0
    for taken, gap in enumerate(gaps, 1):
        now += gap
        wait = rate.wait(now, 1.0)
        now += wait
        assert rate.wait(now, 1.0) < 1e-6
        rate.take(1.0)
        assert taken <= per_minute / 60 * now + max(1.0, per_minute / 60) + 1e-6


def test_what_is_larger_than_the_bucket_goes_when_it_is_full_and_is_paid_off_later() -> None:
    rate = TokenBucket(60.0)
    assert rate.wait(0.0, 30.0) == 0.0
    rate.take(30.0)
    assert rate.wait(0.0, 1.0) == 30.0
    rate.take(-20.0)
    assert rate.wait(0.0, 1.0) == 10.0


def test_a_clock_that_goes_back_gives_nothing() -> None:
    rate = TokenBucket(60.0)
    rate.wait(100.0, 1.0)
    rate.take(1.0)
    assert rate.wait(50.0, 1.0) == 1.0
