"""Why a call failed: what passes with time, what concerns one prompt alone, and what only the user can put right."""

import email.utils
import random
import time
from collections.abc import Mapping
from typing import Literal

from dsrl.errors import StageFailed, UserError
from dsrl.llm.endpoint import Endpoint

Kind = Literal["throttled", "server", "timeout", "connection", "unreachable", "reply", "prompt", "final"]
"""`unreachable`: no connection was made. `reply`: an answer that isn't a chat completion. `prompt`: this one prompt is
too long or filtered; others may do. `final`: no repeat can cure it."""

PASSING_STATUS = (408, 409, 425)
PROMPT_CODES = ("context_length_exceeded", "content_filter", "content_policy_violation", "string_above_max_length")
PROMPT_WORDS = ("maximum context length", "context window", "content management policy", "max_model_len")
QUOTA_CODES = ("insufficient_quota", "billing_hard_limit_reached")
LONGEST_PAUSE = 60.0
NEXT_STEPS = {
    401: "check the key in {key}",
    402: "pay the account up, or take another endpoint",
    403: "ask the provider for access to {model}, or check the key in {key}",
    404: "check the model's name and that base_url ends as the server wants it, mostly in /v1",
    429: "raise the quota of the account, or take another endpoint",
}
ANY_NEXT_STEP = "adapt the endpoint (json_mode, takes_n, takes_seed, max_tokens, extra) to what the server takes"


class CallError(Exception):
    """One HTTP request that brought no completion."""

    def __init__(self, kind: Kind, message: str, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status
        self.retry_after = retry_after
        """Seconds that the endpoint asks to wait."""


def refused(status: int, code: str, message: str, headers: Mapping[str, str]) -> CallError:
    """The failure that an HTTP status of 400 or more stands for."""
    return CallError(status_kind(status, code, message), f"{status}: {message}", status, retry_after(headers))


def status_kind(status: int, code: str, message: str) -> Kind:
    """How to take an HTTP error; `code` and `message` are the endpoint's own."""
    if status >= 500 or status in PASSING_STATUS:
        return "server"
    if status == 429:
        return "final" if code in QUOTA_CODES else "throttled"
    if status == 413 or code in PROMPT_CODES or any(words in message.lower() for words in PROMPT_WORDS):
        return "prompt"
    return "final"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, given as milliseconds, seconds or a date; None where nothing legible is said."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if value.replace(".", "", 1).isdecimal():
            return float(value) * unit
    date = email.utils.parsedate_tz(headers.get("retry-after", ""))
    return None if date is None else max(0.0, email.utils.mktime_tz(date) - time.time())


def pause(attempt: int, backoff: float, asked: float | None) -> float:
    """Seconds before the repeat that follows attempt 0, 1, ...: what the endpoint asks, or else doubling; with jitter,
    never shorter than asked."""
    if asked is not None:
        return asked + random.uniform(0, min(1.0, asked))
    return min(LONGEST_PAUSE, backoff * 2.0 ** min(attempt, 30)) * random.uniform(0.5, 1.0)


def user_error(failure: CallError, endpoint: Endpoint, url: str) -> UserError:
    """What the user is told about a failure that no repeat can cure."""
    if failure.kind == "unreachable":
        return StageFailed(
            f"{endpoint.model}: no connection to {url}",
            got=failure,
            next_step="check the URL and that the server is up; everything paid for is kept",
        )
    step = NEXT_STEPS.get(failure.status or 0, ANY_NEXT_STEP)
    return UserError(
        f"{endpoint.model} at {url} refuses the request",
        got=failure,
        next_step=step.format(key=endpoint.api_key_env or "api_key_env (none is set)", model=endpoint.model),
    )
