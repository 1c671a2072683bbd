"""Counters of what calls cost, and the bound on what the next request may cost."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from operator import attrgetter
from typing import Any

Key = tuple[str, str, str]
"""Stage, role (`teacher`, `model`), model id."""
MIN_SEEN = 4
"""Completions after which their lengths, rather than `max_tokens`, bound the length of the next one."""
LENGTH_MARGIN, LENGTH_SLACK = 1.5, 32
CHARACTERS_PER_TOKEN = 2.0
"""Of prompts, before a reply has reported token counts; low, so that the bound is high."""
PROMPT_MARGIN, PROMPT_SLACK = 1.2, 16


@dataclass(frozen=True, slots=True)
class Spending:
    """What one model cost one stage in one role. Cache hits cost nothing again."""

    requests: int = 0
    """HTTP requests sent, retries included."""
    completions: int = 0
    """Replies received and stored."""
    store_hits: int = 0
    retries: int = 0
    """Requests that repeated a failed one."""
    throttled: int = 0
    """Requests answered with status 429."""
    batch_requests: int = 0
    """Requests sent through the batch API."""
    errors: int = 0
    """Completions that are missing after all retries."""
    lost: int = 0
    """Errors that another run may cure: all but prompts that are too long or filtered."""
    repairs: int = 0
    """Replies sent back because they were not the JSON that was asked for."""
    parse_failures: Mapping[str, int] = field(default_factory=dict)
    """Replies that were not the object asked for, by kind of failure, repaired or not."""
    input_tokens: int = 0
    cached_tokens: int = 0
    """Input tokens read from the endpoint's prompt cache."""
    output_tokens: int = 0
    usd: float | None = 0.0
    """None: unknown, because a price or a token count is."""
    known_usd: float = 0.0
    """The known part of the dollars; equal to `usd` where that is known."""
    hit_completions: int = 0
    """Cache hits that an earlier or a killed run paid for, each completion once a stage."""
    hit_input_tokens: int = 0
    hit_cached_tokens: int = 0
    hit_output_tokens: int = 0
    hit_usd: float | None = 0.0
    """Dollars for the tokens of those hits at today's price."""

    def __post_init__(self) -> None:
        if self.usd is not None:
            object.__setattr__(self, "known_usd", self.usd)

    def __add__(self, other: "Spending") -> "Spending":
        return self._combine(other, 1)

    def __sub__(self, other: "Spending") -> "Spending":
        """What was added since `other`, an earlier state of the same sum."""
        return self._combine(other, -1)

    def _combine(self, other: "Spending", sign: int) -> "Spending":
        return Spending(*(_add(one, more, sign) for one, more in zip(VALUES(self), VALUES(other), strict=True)))

    def words(self) -> str:
        """`1,200 requests, 800,000 input and 90,000 output tokens, $1.2345`."""
        known = f"at least ${self.known_usd:.4f}" if self.known_usd else "dollars unknown"
        usd = known if self.usd is None else f"${self.usd:.4f}"
        tokens = f"{self.input_tokens:,} input and {self.output_tokens:,} output tokens"
        return f"{self.requests:,} requests, {tokens}, {usd}"

    def counters(self) -> dict[str, Any]:
        """The fields as in `metrics.json`."""
        return {name: round(value, 9) if isinstance(value, float) else value for name, value in asdict(self).items()}


VALUES = attrgetter(*(each.name for each in fields(Spending)))


class SpendingTotal:
    """A mutable sum, fast enough for a thousand additions a second."""

    def __init__(self) -> None:
        self._values = list(VALUES(Spending()))

    def add(self, more: Spending) -> None:
        for place, value in enumerate(VALUES(more)):
            if value or value is None:
                self._values[place] = _add(self._values[place], value, 1)

    def sum(self) -> Spending:
        return Spending(*self._values)


def _add(one: Any, other: Any, sign: int) -> Any:
    """None (unknown) if either is None; mappings are added key by key."""
    if one is None or other is None:
        return None
    if isinstance(one, (int, float)):
        return one + sign * other
    sums = {kind: one.get(kind, 0) + sign * other.get(kind, 0) for kind in {**one, **other}}
    return {kind: count for kind, count in sums.items() if count}


@dataclass(frozen=True, slots=True)
class RequestSize:
    """The properties of one HTTP request on which its cost depends."""

    prompt_characters: int
    choices: int = 1
    """Completions asked for (`n`)."""
    max_tokens: int = 0
    """Longest reply in tokens."""


@dataclass(slots=True)
class CostBound:
    """Upper bounds on the tokens of the next request of one key, learned from its replies."""

    completions: int = 0
    longest: int = 0
    """Tokens of the longest completion, as far as the sums that endpoints report show it."""
    tokens_per_character: float = 0.0
    """The highest ratio of prompt tokens to prompt characters."""

    def prompt(self, size: RequestSize) -> int:
        """Bound on prompt tokens."""
        if self.tokens_per_character == 0.0:
            return int(size.prompt_characters / CHARACTERS_PER_TOKEN) + PROMPT_SLACK
        return int(size.prompt_characters * self.tokens_per_character * PROMPT_MARGIN) + PROMPT_SLACK

    def reply(self, size: RequestSize) -> int:
        """Bound on the tokens of all completions together."""
        if self.completions < MIN_SEEN:
            return size.choices * size.max_tokens
        return self.guess(size)

    def guess(self, size: RequestSize) -> int:
        """The same from the few replies seen so far; 0 before the first."""
        longest = int(LENGTH_MARGIN * self.longest) + LENGTH_SLACK if self.completions else 0
        return size.choices * min(size.max_tokens, longest)

    def learn(self, size: RequestSize, spent: Spending) -> None:
        """A reply without token counts may have been as long as allowed."""
        each = -(-spent.output_tokens // max(1, spent.completions)) if spent.output_tokens else size.max_tokens
        self.completions += spent.completions
        self.longest = max(self.longest, each if spent.completions else 0)
        ratio = spent.input_tokens / max(1, size.prompt_characters)
        self.tokens_per_character = max(self.tokens_per_character, ratio)
