"""What the fault server does wrong, as a description that goes over the command line or into `serve`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dsrl.core.component import Component, Many, component

Refusal = Literal["429", "500", "502", "503", "quota"]
"""Answered at once, with an error body. `quota`: 429 with `insufficient_quota`, which no repeat cures."""
Breakage = Literal[
    "hang",
    "drop",
    "cut",
    "truncated",
    "malformed",
    "html",
    "fields",
    "empty",
    "fewer",
    "trickle",
    "no_usage",
    "same_ids",
]
"""Of one HTTP reply: never comes; connection dropped before the body, or in the middle of it; JSON that ends early; no
JSON; HTML; JSON of other fields; no choices; fewer choices than asked for; a body in slow pieces; no token counts; the
same id for all replies and choices."""
Habit = Literal["length", "filter", "refusal", "not_json", "wrong_schema"]
"""Of what the model says, one choice at a time: cut at half its length, filtered, refused, JSON that breaks off, JSON
of other fields. Component of the reply that a request has, so it is the same at every attempt."""
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]

HARMLESS = ("fewer", "trickle", "no_usage", "same_ids")
"""Breakages that bring completions all the same."""


@component(None)
class Outage(Component):
    """From second `start` to second `end` after the server's start."""

    start: Seconds
    end: Seconds
    how: Literal["refuse", "503"] = "refuse"
    """`refuse`: nobody listens, and open connections break; `503`: each request is answered so."""


@component(None)
class Faults(Component):
    """Everything a fault server does. Nothing goes wrong by default, and it answers at once."""

    answer: str = "words"
    """`words`, `echo`, `votes` (questions that are answered right with a probability of their own), `sure` (always
    right), `quickstart` (its rule-based teacher), or `module:function`, an `answers.Answer`."""
    words: int = Field(default=20, ge=1)
    """Mean length of replies of `words`."""
    seed: int = 0
    """Another seed draws other service times, faults and replies."""
    models: Many[str] = ()
    """Models it has; empty: any. Others get 404."""
    key: str | None = None
    """401 unless a request bears it."""
    context: int | None = Field(default=None, ge=1)
    """Tokens of prompt and reply; beyond it 400 `context_length_exceeded`."""
    takes_n: bool = True
    """Otherwise 400 where n is over 1."""
    takes_schema: bool = True
    """Otherwise 400 where a JSON schema is asked for."""
    takes_json: bool = True
    """Otherwise 400 for any `response_format` but text."""
    cached: Share = 0.0
    """Share of the prompt's tokens that `usage` calls cached."""

    latency: Seconds = 0.0
    """Service time, in seconds, from the last message alone, so the same for each client. The median, where
    `sigma` is set."""
    jitter: Share = 0.0
    """Service times lie within this share around `latency`."""
    sigma: float = Field(default=0.0, ge=0)
    """Log-normal service times: the standard deviation of their logarithm."""
    shortest: Seconds = 0.0
    longest: Seconds = 3600.0
    """Service times are cut to these bounds."""

    capacity: int | None = Field(default=None, ge=0)
    """Requests in service at once; more get 429. None: no bound."""
    schedule: Many[Annotated[tuple[Seconds, int], Field(strict=False)]] = ()
    """(second, capacity): how the capacity changes after the start."""
    requests_per_minute: int | None = Field(default=None, ge=0)
    """Admitted within the last 60 seconds; more get 429."""
    hint: Literal["seconds", "milliseconds", "date", "none"] = "seconds"
    """How a 429 says when to come again: `Retry-After` in seconds or as a date, `retry-after-ms`, or not at all."""
    retry_after: Seconds = 1.0
    """What it says."""

    shares: dict[Refusal | Breakage | Habit, Share] = Field(default_factory=dict)
    """Fault -> how often it happens, drawn from the request and the number of the attempt."""
    script: Many[Refusal | Breakage | Literal["ok"]] = ()
    """What the first requests meet, in the order in which they come; after that the shares hold."""
    slow: Seconds = 0.05
    """Pause between the pieces of a body that trickles."""

    outages: Many[Outage] = ()
    batch_seconds: Seconds = 0.0
    """Time that a batch job takes, whatever its requests."""
    batch_end: Literal["completed", "expired", "cancelled", "failed"] = "completed"
    """How batch jobs end."""
    batch_answered: Share = 1.0
    """Share of a job's requests that the server comes to before it ends; drawn anew for each job."""
    batch_most: int | None = Field(default=None, ge=1)
    """Requests that one job may hold; a larger one fails with `token_limit_exceeded`. None: no bound."""

    down: Literal["refuse", "503"] | None = None
    """Down now, until it is set otherwise."""

    @model_validator(mode="after")
    def _sums(self) -> Self:
        for name, group in (("breakages", (Refusal, Breakage)), ("habits", (Habit,))):
            known = {fault for kind in group for fault in kind.__args__}  # type: ignore[attr-defined]
            if (total := sum(share for fault, share in self.shares.items() if fault in known)) > 1 + 1e-9:
                raise ValueError(f"shares of {name} sum up to {total:g}, more than 1")
        return self
