"""Description of what the fault server does wrong. Passed as JSON to the server's process."""

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from dsrl.core.component import Component, Many, component

Refusal = Literal["429", "500", "502", "503", "quota"]
"""Immediate error responses. `quota` is a 429 with `insufficient_quota`, which retries don't cure."""
Breakage = Literal[
    "hang",  # no response
    "drop",  # connection closed before the response
    "cut",  # connection closed in the middle of the body
    "truncated",  # JSON that ends early, with a matching Content-Length
    "malformed",  # not JSON
    "html",
    "fields",  # JSON with other fields
    "empty",  # no choices
    "fewer",  # fewer choices than requested
    "trickle",  # the body in slow pieces
    "no_usage",  # no token counts
    "same_ids",  # the same id in all replies, the same index in all choices
]
"""Damage to one HTTP response."""
Habit = Literal["length", "filter", "refusal", "not_json", "wrong_schema"]
"""Faults of the model, per choice: stopped at half the length, content filter, refusal, JSON that ends early, JSON with
other fields. They depend on the request only, so every attempt gets the same."""
REFUSALS, BREAKAGES, HABITS = get_args(Refusal), get_args(Breakage), get_args(Habit)
HARMLESS = ("fewer", "trickle", "no_usage", "same_ids")
"""Breakages that deliver completions nevertheless."""

Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]


@component(None)
class Outage(Component):
    """An outage from second `start` to second `end` after the server's start."""

    start: Seconds
    end: Seconds
    how: Literal["refuse", "503"] = "refuse"
    """`refuse`: stop listening and abort open connections; `503`: answer every request with 503."""


@component(None)
class Faults(Component):
    """Behaviour of a fault server. By default nothing fails and replies are immediate."""

    answer: str = "words"
    """`words`, `echo`, `votes` (each question has its own probability of a correct answer), `sure` (always correct),
    `quickstart` (the rule-based teacher), or `module:function`, an `answers.Answer`."""
    words: int = Field(default=20, ge=1)
    """Mean number of words in replies of `words`."""
    seed: int = 0
    """Seed of service times, faults and replies."""
    models: Many[str] = ()
    """Available models; others get 404. Empty: any."""
    key: str | None = None
    """Required API key; requests without it get 401."""
    context: int | None = Field(default=None, ge=1)
    """Context window in tokens; longer requests get 400 `context_length_exceeded`."""
    takes_n: bool = True
    """False: 400 for n above 1."""
    takes_schema: bool = True
    """False: 400 for a JSON schema."""
    takes_json: bool = True
    """False: 400 for any `response_format` but text."""
    cached: Share = 0.0
    """Share of prompt tokens that `usage` reports as cached."""

    latency: Seconds = 0.0
    """Service time in seconds; the median with `sigma`. It depends on the last message only, so it is the same for
    every client."""
    jitter: Share = 0.0
    """Service times are uniform within this share around `latency`."""
    sigma: float = Field(default=0.0, ge=0)
    """Log-normal service times: standard deviation of their logarithm."""
    shortest: Seconds = 0.0
    """Lower bound of service times."""
    longest: Seconds = 3600.0
    """Upper bound of service times."""

    capacity: int | None = Field(default=None, ge=0)
    """Maximum number of requests in service; more get 429. None: no limit."""
    schedule: Many[Annotated[tuple[Seconds, int], Field(strict=False)]] = ()
    """(second, capacity): changes of the capacity after the start."""
    requests_per_minute: int | None = Field(default=None, ge=0)
    """Maximum number of requests admitted in 60 seconds; more get 429."""
    hint: Literal["seconds", "milliseconds", "date", "none"] = "seconds"
    """Form of the retry hint of a 429: `Retry-After` in seconds or as a date, `retry-after-ms`, or none."""
    retry_after: Seconds = 1.0
    """Value of the retry hint."""

    shares: dict[Refusal | Breakage | Habit, Share] = Field(default_factory=dict)
    """Fault -> its probability, drawn from the request and the attempt number."""
    script: Many[Refusal | Breakage | Literal["ok"]] = ()
    """Faults of the first requests, in order of arrival. `shares` applies after that."""
    slow: Seconds = 0.05
    """Pause between the pieces of a body that trickles."""

    outages: Many[Outage] = ()
    """Scheduled outages."""
    batch_seconds: Seconds = 0.0
    """Duration of a batch job."""
    batch_end: Literal["completed", "expired", "cancelled", "failed"] = "completed"
    """Final status of batch jobs."""
    batch_answered: Share = 1.0
    """Share of a job's requests that are processed before it ends; drawn per job."""
    batch_most: int | None = Field(default=None, ge=1)
    """Maximum number of requests in a job; larger jobs fail with `token_limit_exceeded`. None: no limit."""

    down: Literal["refuse", "503"] | None = None
    """Outage from now on, until it is set to None."""

    @model_validator(mode="after")
    def _check_sums(self) -> Self:
        for name, kinds in (("breakages", (*REFUSALS, *BREAKAGES)), ("habits", HABITS)):
            if (total := sum(self.shares.get(kind, 0.0) for kind in kinds)) > 1 + 1e-9:
                raise ValueError(f"shares of {name} sum up to {total:g}, more than 1")
        return self
