from dsrl.llm.ratelimit.controller import MAX_PROBE_DELAY, MIN_DISTINCT, MIN_DOWN_FAILURES, MIN_FAILURES, CircuitBreaker


def test_nothing_but_failures_of_several_requests_is_an_outage() -> None:
    breaker = CircuitBreaker()
    for number in range(MIN_FAILURES):
        assert not breaker.is_open
        breaker.failed(float(number), f"request {number % MIN_DISTINCT}")
    assert breaker.is_open
    assert breaker.down_for(100.0) == 100.0
    breaker.reset()
    assert (breaker.is_open, breaker.down_for(200.0)) == (False, 0.0)


def test_a_success_in_between_breaks_the_run() -> None:
    breaker = CircuitBreaker()
    for number in range(10 * MIN_FAILURES):
        if number % (MIN_FAILURES - 1) == 0:
            breaker.reset()
        breaker.failed(float(number), f"request {number}")
    assert not breaker.is_open


def test_one_request_alone_may_be_the_reason_itself_unless_the_endpoint_says_otherwise() -> None:
    breaker = CircuitBreaker()
    for number in range(10 * MIN_FAILURES):
        breaker.failed(float(number), "the same")
    assert not breaker.is_open
    for _ in range(MIN_DOWN_FAILURES):
        breaker.failed(0.0, "the same", down=True)
    assert breaker.is_open


def test_pauses_grow_to_a_few_seconds() -> None:
    breaker = CircuitBreaker()
    assert [breaker.next_probe_delay() for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, MAX_PROBE_DELAY, MAX_PROBE_DELAY]
    breaker.reset()
    assert breaker.next_probe_delay() == 0.5


def test_being_turned_away_is_no_outage_but_time_without_a_success() -> None:
    breaker = CircuitBreaker()
    for second in range(100):
        breaker.throttled(float(second))
    assert (breaker.is_open, breaker.down_for(100.0)) == (False, 100.0)
