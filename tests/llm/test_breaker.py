from dsrl.llm.ratelimit.breaker import DIFFERENT, ENOUGH, LONGEST_PAUSE, PLAIN_ENOUGH, Breaker


def test_nothing_but_failures_of_several_requests_is_an_outage() -> None:
    breaker = Breaker(600.0)
    for number in range(ENOUGH):
        assert not breaker.is_open
        breaker.failed(float(number), f"request {number % DIFFERENT}")
    assert breaker.is_open
    assert breaker.down(100.0) == 100.0
    breaker.reset()
    assert (breaker.is_open, breaker.down(200.0)) == (False, 0.0)


def test_a_success_in_between_breaks_the_run() -> None:
    breaker = Breaker(600.0)
    for number in range(10 * ENOUGH):
        if number % (ENOUGH - 1) == 0:
            breaker.reset()
        breaker.failed(float(number), f"request {number}")
    assert not breaker.is_open


def test_one_request_alone_may_be_the_reason_itself_unless_the_endpoint_says_otherwise() -> None:
    breaker = Breaker(600.0)
    for number in range(10 * ENOUGH):
        breaker.failed(float(number), "the same")
    assert not breaker.is_open
    for _ in range(PLAIN_ENOUGH):
        breaker.failed(0.0, "the same", plain=True)
    assert breaker.is_open


def test_pauses_grow_to_a_few_seconds() -> None:
    breaker = Breaker(600.0)
    assert [breaker.next_pause() for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, LONGEST_PAUSE, LONGEST_PAUSE]
    breaker.reset()
    assert breaker.next_pause() == 0.5


def test_being_turned_away_is_no_outage_but_time_without_a_success() -> None:
    breaker = Breaker(600.0)
    for second in range(100):
        breaker.turned_away(float(second))
    assert (breaker.is_open, breaker.down(100.0)) == (False, 100.0)
