import email.utils
import time

import pytest

from dsrl.core.errors import StageFailed
from dsrl.llm import Endpoint
from dsrl.llm.failures import (
    CallError,
    FailureKind,
    final_error,
    http_failure,
    outage_error,
    retry_after,
    retry_delay,
    status_kind,
)

STATUSES: list[tuple[int, str, str, FailureKind]] = [
    (500, "", "", "server"),
    (501, "", "Unsupported method", "foreign"),
    (505, "", "", "foreign"),
    (503, "", "loading", "server"),
    (529, "overloaded_error", "", "server"),
    (408, "", "", "server"),
    (409, "", "", "server"),
    (429, "rate_limit_exceeded", "slow down", "throttled"),
    (429, "insufficient_quota", "", "final"),
    (400, "context_length_exceeded", "", "prompt"),
    (400, "BadRequestError", "This model's maximum context length is 4096 tokens.", "prompt"),
    (400, "content_filter", "", "prompt"),
    (413, "", "", "prompt"),
    (400, "", "unknown field seed", "refused"),
    (401, "invalid_api_key", "", "final"),
    (402, "", "Insufficient Balance", "final"),
    (403, "", "", "refused"),
    (404, "model_not_found", "", "refused"),
    (422, "", "", "refused"),
]


@pytest.mark.parametrize(("status", "code", "message", "kind"), STATUSES)
def test_status_kind(status: int, code: str, message: str, kind: FailureKind) -> None:
    assert status_kind(status, code, message) == kind


WAITS = [
    ({}, None),
    ({"retry-after": "7"}, 7.0),
    ({"retry-after": " 1.5 "}, 1.5),
    ({"retry-after": "0"}, 0.0),
    ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
    ({"retry-after": "soon"}, None),
    ({"retry-after": "-3"}, None),
    ({"retry-after": "inf"}, None),
    ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
]


@pytest.mark.parametrize(("headers", "seconds"), WAITS)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_retry_after_a_date() -> None:
    seconds = retry_after({"retry-after": email.utils.formatdate(time.time() + 3600, usegmt=True)})
    assert seconds is not None
    assert 3500 < seconds <= 3600


def test_retry_after_a_date_counts_from_the_endpoints_own_clock() -> None:
    headers = {"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}
    assert retry_after(headers) == 30.0


ENDPOINT = Endpoint(model="m", backoff=0.5, outage=100.0)


def test_pauses_double_up_to_a_bound() -> None:
    for kind, attempt, longest in [("server", 0, 0.5), ("server", 1, 1.0), ("server", 4, 8.0), ("server", 9999, 8.0)]:
        assert all(longest / 2 <= retry_delay(attempt, ENDPOINT, CallError(kind, "")) <= longest for _ in range(50))
    assert retry_delay(9999, ENDPOINT, CallError("throttled", "")) <= 5.0


@pytest.mark.parametrize(("asked", "least", "most"), [(7.0, 7.0, 7.1), (0.0, 0.0, 0.1), (1e9, 100.0, 100.1)])
def test_a_pause_is_what_the_endpoint_asks_but_not_beyond_its_outage(asked: float, least: float, most: float) -> None:
    assert least <= retry_delay(3, ENDPOINT, CallError("throttled", "", 429, asked)) <= most


def test_an_outage_says_since_when_and_how_it_goes_on() -> None:
    told = str(outage_error(CallError("server", "503: busy", 503), ENDPOINT, 123.4))
    assert all(words in told for words in ["m is down", "123 s", "503: busy", "100 s", "same command", "kept"])
    told = str(outage_error(CallError("throttled", "429: slow", 429, 900.0), ENDPOINT, 100.0))
    assert "throttles every request" in told
    assert "asks to wait 900 s" in told


def test_the_next_step_names_the_variable_and_the_model() -> None:
    endpoint = Endpoint(model="gpt-x", api_key_env="MY_KEY")
    told = str(final_error(CallError("final", "401: no", 401), endpoint, "https://a/v1"))
    assert "gpt-x at https://a/v1" in told
    assert "MY_KEY" in told
    assert isinstance(final_error(CallError("unreachable", "refused"), endpoint, "https://a/v1"), StageFailed)


PAGES: list[tuple[int, FailureKind, str]] = [
    (500, "foreign", "base_url, which mostly ends in /v1"),
    (404, "refused", "base_url, which mostly ends in /v1"),
    (405, "refused", "base_url, which mostly ends in /v1"),
    (401, "final", "check the key in MY_KEY; the answer was a web page"),
    (403, "refused", "ask the provider for access to m, or check the key in MY_KEY; the answer was a web page"),
    (429, "throttled", ""),
    (413, "prompt", ""),
    *[(status, "server", "") for status in (408, 502, 503, 504, 522)],
]


@pytest.mark.parametrize(("status", "kind", "advice"), PAGES)
def test_a_web_page_is_no_chat_server_unless_a_gateway_speaks_for_one(
    status: int, kind: FailureKind, advice: str
) -> None:
    failure = http_failure(status, "", "a web page: Oops", {}, page=True)
    assert failure.kind == kind
    if advice:
        assert advice in str(final_error(failure, Endpoint(model="m", api_key_env="MY_KEY"), "https://a/v1"))


FIELDS = [
    ("n: only 1 is supported", "set takes_n=false"),
    ("Unsupported parameter: 'n'", "set takes_n=false"),
    ("unknown field seed", "set takes_seed=false"),
    ("line 1\\nbad \\n ", "adapt the endpoint"),
    ("not known", "adapt the endpoint"),
]


@pytest.mark.parametrize(("message", "advice"), FIELDS)
def test_the_field_that_is_refused_says_what_to_set(message: str, advice: str) -> None:
    assert advice in str(final_error(CallError("final", f"400: {message}", 400), ENDPOINT, "https://a/v1"))


def test_an_outage_of_time_outs_says_that_the_time_out_may_be_too_short() -> None:
    told = str(outage_error(CallError("timeout", "no answer within 600 s"), ENDPOINT, 700.0))
    assert "raise the endpoint's timeout (now 600 s; for a teacher it is teacher.timeout) or lower" in told
