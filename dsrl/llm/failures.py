"""Why a call failed: transient, caused by one prompt, or something that only the user can fix."""

import email.utils
import random
import re
import time
from collections.abc import Mapping
from typing import Literal

from dsrl.core.errors import StageFailed, UserError
from dsrl.core.text import printable
from dsrl.data.model import Usage
from dsrl.llm.endpoint import Endpoint

FailureKind = Literal[
    "throttled", "server", "timeout", "connection", "unreachable", "reply", "foreign", "refused", "prompt", "final"
]
"""`unreachable`: no connection was made. `reply`: a damaged chat completion. `foreign`: an answer of another kind, such
as a web page or an unknown method. `refused`: a 4xx that may concern this prompt or every
request, which the outcome of other requests decides (`refusals`). `prompt`: it concerns this prompt, others may pass.
`final`: a retry cannot help."""

TRANSIENT_STATUS = (408, 409, 425)
FOREIGN_STATUS = (501, 505)
"""Sent by servers of another kind, for any POST or for its HTTP version."""
GATEWAY_STATUS = (502, 503, 504, *range(520, 530))
"""Sent, often as a web page, by a gateway whose server is down or loading."""
CREDENTIAL_STATUS = (401, 402, 403)
FINAL_STATUS = (401, 402)
"""Concern the account, whatever the prompt."""
RESAMPLE_CODES = ("json_validate_failed", "tool_use_failed", "output_parse_failed")
"""Groq's own check of the reply failed: drawing again may help."""
PROMPT_CODES = ("context_length_exceeded", "content_filter", "content_policy_violation", "string_above_max_length")
PROMPT_WORDS = (
    *("maximum context length", "context window", "max_model_len", "prompt is too long"),
    *("exceeds the maximum number of tokens", "content management policy", "input was flagged", "content exists risk"),
)
QUOTA_CODES = ("insufficient_quota", "billing_hard_limit_reached")
MAX_DELAY = 8.0
"""Longest delay in seconds before a retry of a failed request; an outage is handled by the circuit breaker."""
MAX_THROTTLED_DELAY = 5.0
"""Longest delay in seconds after a 429 without `Retry-After`."""
MAX_RETRY_AFTER = 1e9
"""A longer delay in seconds is garbage."""
CLOCK_SLACK = 0.01
"""Seconds by which the timers of an event loop may fire early."""
NEXT_STEPS = {
    401: "check the key in {key}",
    402: "top up the account, or use another endpoint",
    403: "ask the provider for access to {model}, or check the key in {key}",
    404: "check the model's name and that base_url ends as the server expects, mostly in /v1",
    429: "raise the quota of the account, or use another endpoint",
}
FIELD_STEPS = {
    "max_completion_tokens": "set token_limit=max_completion_tokens, if the model wants that instead of max_tokens",
    "temperature": "set takes_temperature=false, or a temperature that the model takes",
    "top_p": "set takes_temperature=false, or a top_p that the model takes",
    "seed": "set takes_seed=false",
    "max_tokens": "lower max_tokens to what the model takes",
    "n": "set takes_n=false",
}
"""Field that an error message names -> next step."""
DEFAULT_STEP = (
    "adapt the endpoint to what the server takes: json_mode, takes_n, takes_seed, takes_temperature, token_limit, "
    "max_tokens, extra"
)


class CallError(Exception):
    """One HTTP request that brought no completion."""

    page = False
    """Whether the answer was a web page."""

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        status: int | None = None,
        retry_after: float | None = None,
        *,
        billed: bool = False,
        usage: Usage | None = None,
    ) -> None:
        super().__init__(printable(message))
        self.kind = kind
        self.status = status
        self.retry_after = retry_after
        """Seconds to wait that the endpoint requests."""
        self.billed = billed
        """Whether the endpoint generated a reply, which it bills although it cannot be used."""
        self.usage = usage
        """Tokens of that reply; None: not reported."""


def http_failure(status: int, code: str, message: str, headers: Mapping[str, str], page: bool = False) -> CallError:
    """The failure for an HTTP status of 300 or more; `page`: the body was a web page."""
    kind = status_kind(status, code, message)
    if page and kind == "server" and status >= 500 and status not in GATEWAY_STATUS:
        kind = "foreign"
    failure = CallError(kind, f"{status}: {message}", status, retry_after(headers))
    failure.page = page
    return failure


def status_kind(status: int, code: str, message: str) -> FailureKind:
    """Classify an HTTP error; `code` and `message` come from the endpoint."""
    if status in FOREIGN_STATUS:
        return "foreign"
    if status >= 500 or status in TRANSIENT_STATUS:
        return "server"
    if status == 429:
        return "final" if code in QUOTA_CODES else "throttled"
    if status == 413 or code in PROMPT_CODES or any(words in message.lower() for words in PROMPT_WORDS):
        return "prompt"
    if code in RESAMPLE_CODES:
        return "reply"
    return "final" if status in FINAL_STATUS or status < 400 else "refused"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from milliseconds, seconds or an HTTP date; None if absent or unreadable.

    A date is compared with the response's own `Date`, because the clocks of two machines differ.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if value.replace(".", "", 1).isdecimal():
            return min(float(value), MAX_RETRY_AFTER) * unit
    date = _timestamp(headers.get("retry-after", ""))
    return None if date is None else max(0.0, date - (_timestamp(headers.get("date", "")) or time.time()))


def _timestamp(date: str) -> float | None:
    try:
        parsed = email.utils.parsedate_tz(date)
        return None if parsed is None else email.utils.mktime_tz(parsed)
    except (ValueError, OverflowError):  # a year that no calendar has
        return None


def retry_delay(attempt: int, endpoint: Endpoint, failure: CallError) -> float:
    """Seconds before the retry that follows attempt 0, 1, ...: what the endpoint requests, at most its `outage`, or
    else exponential backoff with jitter."""
    if failure.retry_after is not None:
        return min(failure.retry_after, endpoint.outage) + CLOCK_SLACK
    longest = MAX_THROTTLED_DELAY if failure.kind == "throttled" else MAX_DELAY
    return min(longest, endpoint.backoff * 2.0 ** min(attempt, 30)) * random.uniform(0.5, 1.0)


def final_error(failure: CallError, endpoint: Endpoint, url: str) -> UserError:
    """The error for a failure that no retry can cure."""
    if failure.kind == "unreachable":
        return StageFailed(
            f"{endpoint.model}: no connection to {url}",
            got=failure,
            next_step="check the URL and that the server is up; all replies paid for are kept",
        )
    if failure.kind == "foreign" or (failure.page and failure.status not in CREDENTIAL_STATUS):
        return UserError(
            f"{url} does not answer as an OpenAI-compatible server does",
            got=failure,
            next_step="check base_url, which mostly ends in /v1, and that no proxy or login page is in between",
        )
    return UserError(
        f"{endpoint.model} at {url} refuses the request",
        got=failure,
        next_step=next_step(failure).format(
            key=endpoint.api_key_env or "api_key_env (none is set)", model=endpoint.model
        ),
    )


def next_step(failure: CallError) -> str:
    """The advice for a refusal, by its status or by the request field that its message names."""
    words = str(failure).lower()
    if failure.status == 400 and "api key" in words:  # Google's status for a wrong key
        return NEXT_STEPS[401]
    if failure.status in (400, 422):
        # as a whole word, and not the `n` of a written-out `\n`
        named = (step for field, step in FIELD_STEPS.items() if re.search(rf"(?<!\\)\b{field}\b", words))
        return next(named, DEFAULT_STEP)
    step = NEXT_STEPS.get(failure.status or 0, DEFAULT_STEP)
    return f"{step}; the answer was a web page, so check base_url as well" if failure.page else step


def timeout_advice(endpoint: Endpoint) -> str:
    """The advice for requests that time out."""
    timeout = f"timeout (now {endpoint.timeout:g} s; for a teacher it is teacher.timeout)"
    return f"raise the endpoint's {timeout} or lower its concurrency ({endpoint.concurrency})"


def all_timed_out_error(failure: CallError, endpoint: Endpoint, url: str) -> StageFailed:
    """The error for an endpoint of which every request timed out."""
    return StageFailed(
        f"{endpoint.model} at {url}: every request timed out, none brought a reply",
        got=f"{failure}; the requests sent may be billed all the same",
        next_step=f"{timeout_advice(endpoint)}, then run the same command",
    )


def outage_error(failure: CallError, endpoint: Endpoint, down: float) -> StageFailed:
    """The error for an endpoint without a success for `down` seconds."""
    throttled, timed_out = failure.kind == "throttled", failure.kind == "timeout"
    resume = "run the same command once it answers again: it resumes here, and all replies paid for are kept"
    state = "throttles every request" if throttled else "is down"
    asks = f", and asks to wait {failure.retry_after:.0f} s" if throttled and failure.retry_after else ""
    return StageFailed(
        f"{endpoint.model} {state}: no reply for {down:.0f} s",
        got=f"{failure}{asks}",
        allowed=f"{endpoint.outage:g} s without a reply (the endpoint's `outage`)",
        next_step=f"if it is slow rather than down, {timeout_advice(endpoint)}; {resume}" if timed_out else resume,
    )
