import pytest

from dsrl.llm.ratelimit.controller import RequestRate


def test_requests_per_second_over_the_last_ten_seconds() -> None:
    speed = RequestRate()
    assert speed.per_second(5.0) == 0.0
    for tick in range(400):
        speed.add(100.0 + tick / 20)
    assert speed.per_second(120.0) == pytest.approx(20.0, rel=0.02)
    assert speed.per_second(120.7) == pytest.approx(18.6, rel=0.02)
    assert speed.per_second(140.0) == 0.0


def test_the_first_seconds_are_not_spread_over_ten() -> None:
    speed = RequestRate()
    for tick in range(40):
        speed.add(100.0 + tick / 20)
    assert speed.per_second(102.0) == pytest.approx(20.0)
