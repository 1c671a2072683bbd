"""Why a call failed: what passes with time, what concerns one prompt alone, and what only the user can put right."""

import email.utils
import random
import re
import time
from collections.abc import Mapping
from typing import Literal

from dsrl.core.errors import StageFailed, UserError
from dsrl.llm.endpoint import Endpoint

Kind = Literal["throttled", "server", "timeout", "connection", "unreachable", "reply", "foreign", "prompt", "final"]
"""`unreachable`: no connection was made. `reply`: a damaged chat completion. `foreign`: an answer of another kind, as a
web page is, or a method that is not known there. `prompt`: this one prompt is too long or filtered; others may do.
`final`: no repeat can cure it."""

PASSING_STATUS = (408, 409, 425)
UNKNOWN_STATUS = (501, 505)
"""Said by servers of another kind, to any POST or to its version of HTTP."""
GATEWAY_STATUS = (502, 503, 504, *range(520, 530))
"""Said, often as a web page, by what stands before a server that is down or loading."""
ABOUT_THE_KEY = (401, 402, 403)
PROMPT_CODES = ("context_length_exceeded", "content_filter", "content_policy_violation", "string_above_max_length")
PROMPT_WORDS = (
    *("maximum context length", "context window", "max_model_len", "prompt is too long"),
    *("exceeds the maximum number of tokens", "content management policy", "input was flagged", "content exists risk"),
)
QUOTA_CODES = ("insufficient_quota", "billing_hard_limit_reached")
LONGEST_PAUSE = 8.0
"""Longest pause of one request after a failure of its own; an endpoint that is down is the breaker's matter."""
LONGEST_TURN = 5.0
"""Longest pause of a request that was turned away as too many, where the endpoint asks for none."""
CLOCK_SLACK = 0.01
"""Seconds by which an event loop's timers may come early."""
NEXT_STEPS = {
    401: "check the key in {key}",
    402: "pay the account up, or take another endpoint",
    403: "ask the provider for access to {model}, or check the key in {key}",
    404: "check the model's name and that base_url ends as the server wants it, mostly in /v1",
    429: "raise the quota of the account, or take another endpoint",
}
FIELDS = {
    "max_completion_tokens": "set token_limit=max_completion_tokens, if the model wants that instead of max_tokens",
    "temperature": "set takes_temperature=false, or a temperature that the model takes",
    "top_p": "set takes_temperature=false, or a top_p that the model takes",
    "seed": "set takes_seed=false",
    "max_tokens": "lower max_tokens to what the model takes",
    "n": "set takes_n=false",
}
"""What a request is refused for -> what to do about it."""
ANY_NEXT_STEP = (
    "adapt the endpoint to what the server takes: json_mode, takes_n, takes_seed, takes_temperature, token_limit, "
    "max_tokens, extra"
)


class CallError(Exception):
    """One HTTP request that brought no completion."""

    page = False
    """Whether a web page was the answer."""

    def __init__(self, kind: Kind, message: str, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status
        self.retry_after = retry_after
        """Seconds that the endpoint asks to wait."""


def refused(status: int, code: str, message: str, headers: Mapping[str, str], page: bool = False) -> CallError:
    """The failure that an HTTP status of 400 or more stands for; `page`: it came with a web page."""
    kind = status_kind(status, code, message)
    if page and kind == "server" and status >= 500 and status not in GATEWAY_STATUS:
        kind = "foreign"
    failure = CallError(kind, f"{status}: {message}", status, retry_after(headers))
    failure.page = page
    return failure


def status_kind(status: int, code: str, message: str) -> Kind:
    """How to take an HTTP error; `code` and `message` are the endpoint's own."""
    if status in UNKNOWN_STATUS:
        return "foreign"
    if status >= 500 or status in PASSING_STATUS:
        return "server"
    if status == 429:
        return "final" if code in QUOTA_CODES else "throttled"
    if status == 413 or code in PROMPT_CODES or any(words in message.lower() for words in PROMPT_WORDS):
        return "prompt"
    return "final"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, given as milliseconds, seconds or a date; None where nothing legible is said. A date is
    counted from the endpoint's own, where it says it, because clocks differ and jump."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if value.replace(".", "", 1).isdecimal():
            return float(value) * unit
    date = _seconds(headers.get("retry-after", ""))
    return None if date is None else max(0.0, date - (_seconds(headers.get("date", "")) or time.time()))


def _seconds(date: str) -> float | None:
    """Since 1970."""
    parsed = email.utils.parsedate_tz(date)
    return None if parsed is None else email.utils.mktime_tz(parsed)


def pause(attempt: int, endpoint: Endpoint, failure: CallError) -> float:
    """Seconds before the repeat that follows attempt 0, 1, ...: what the endpoint asks, but no longer than its
    `outage`, or else doubling, with jitter."""
    if failure.retry_after is not None:
        return min(failure.retry_after, endpoint.outage) + CLOCK_SLACK
    longest = LONGEST_TURN if failure.kind == "throttled" else LONGEST_PAUSE
    return min(longest, endpoint.backoff * 2.0 ** min(attempt, 30)) * random.uniform(0.5, 1.0)


def user_error(failure: CallError, endpoint: Endpoint, url: str) -> UserError:
    """What the user is told about a failure that no repeat can cure."""
    if failure.kind == "unreachable":
        return StageFailed(
            f"{endpoint.model}: no connection to {url}",
            got=failure,
            next_step="check the URL and that the server is up; everything paid for is kept",
        )
    if failure.kind == "foreign" or (failure.page and failure.status not in ABOUT_THE_KEY):
        return UserError(
            f"{url} does not answer as an OpenAI-compatible server does",
            got=failure,
            next_step="check base_url, which mostly ends in /v1, and that no proxy or login page stands before it",
        )
    return UserError(
        f"{endpoint.model} at {url} refuses the request",
        got=failure,
        next_step=_next_step(failure).format(
            key=endpoint.api_key_env or "api_key_env (none is set)", model=endpoint.model
        ),
    )


def _next_step(failure: CallError) -> str:
    """By the status, or by the field that a malformed request is said to have."""
    words = str(failure).lower()
    if failure.status == 400 and "api key" in words:  # so says Google
        return NEXT_STEPS[401]
    if failure.status in (400, 422):
        return next((step for field, step in FIELDS.items() if _names(field, words)), ANY_NEXT_STEP)
    step = NEXT_STEPS.get(failure.status or 0, ANY_NEXT_STEP)
    return f"{step}; a web page has answered, so check base_url as well" if failure.page else step


def _names(field: str, words: str) -> bool:
    """As a word of its own, and not as the end of a written-out line break."""
    return re.search(rf"(?<!\\)\b{field}\b", words) is not None


def waiting_advice(endpoint: Endpoint) -> str:
    """What to do where requests run into their time-out."""
    timeout = f"timeout (now {endpoint.timeout:g} s; of a teacher it is teacher.timeout)"
    return f"raise the endpoint's {timeout} or lower its concurrency ({endpoint.concurrency})"


def hanging_error(failure: CallError, endpoint: Endpoint, url: str) -> StageFailed:
    """What the user is told where every request has run into its time-out and none ever brought anything."""
    return StageFailed(
        f"{endpoint.model} at {url}: every request ran into its time-out, none brought a reply",
        got=f"{failure}; what was sent may be billed all the same",
        next_step=f"{waiting_advice(endpoint)}, then run the same command",
    )


def outage_error(failure: CallError, endpoint: Endpoint, down: float) -> StageFailed:
    """What the user is told when an endpoint has brought nothing for too long."""
    turned_away, hangs = failure.kind == "throttled", failure.kind == "timeout"
    again = "run the same command when it answers again: it goes on here, all that was paid for is kept"
    state = "turns every request away" if turned_away else "is down"
    asks = f", and asks to wait {failure.retry_after:.0f} s" if turned_away and failure.retry_after else ""
    return StageFailed(
        f"{endpoint.model} {state}: no reply for {down:.0f} s",
        got=f"{failure}{asks}",
        allowed=f"{endpoint.outage:g} s without a reply (the endpoint's `outage`)",
        next_step=f"if it is slow rather than down, {waiting_advice(endpoint)}; {again}" if hangs else again,
    )
