"""What calls cost: counters that add up, by stage, role and model."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from operator import attrgetter
from typing import Any

Key = tuple[str, str, str]
"""Stage, role (`teacher`, `model`), model id."""


@dataclass(frozen=True, slots=True)
class Spending:
    """What one model cost one stage in one role. Replies out of the store are hits and cost nothing again."""

    requests: int = 0
    """HTTP requests sent, repeats included."""
    completions: int = 0
    """Replies received and stored."""
    store_hits: int = 0
    retries: int = 0
    """Those of the requests that repeated a failed one."""
    throttled: int = 0
    """Those of the requests that the endpoint turned away as too many (status 429)."""
    batch_requests: int = 0
    """Those of the requests that went through the endpoint's batch interface."""
    errors: int = 0
    """Completions that are missing after all repeats."""
    lost: int = 0
    """Those of the errors that another try may cure: all but prompts that are too long or filtered."""
    repairs: int = 0
    """Replies sent back because they were not the JSON that was asked for."""
    parse_failures: Mapping[str, int] = field(default_factory=dict)
    """Replies that were not the object asked for, by what was wrong with them, whether repaired or not."""
    input_tokens: int = 0
    cached_tokens: int = 0
    """Those of the input tokens that the endpoint found in its own cache."""
    output_tokens: int = 0
    usd: float | None = 0.0
    """None: unknown, because a price or a token count is."""
    known_usd: float = 0.0
    """The part of the dollars that is known: all of them where `usd` is."""
    hit_completions: int = 0
    """Those of the store hits that an earlier run, or a killed one, had paid for, each completion once a stage."""
    hit_input_tokens: int = 0
    """Tokens of those."""
    hit_cached_tokens: int = 0
    hit_output_tokens: int = 0
    hit_usd: float | None = 0.0
    """Dollars for those tokens at today's price."""

    def __post_init__(self) -> None:
        if self.usd is not None:
            object.__setattr__(self, "known_usd", self.usd)

    def __add__(self, other: "Spending") -> "Spending":
        return self._with(other, 1)

    def __sub__(self, other: "Spending") -> "Spending":
        """What came after `other`, an earlier state of the same sum."""
        return self._with(other, -1)

    def _with(self, other: "Spending", sign: int) -> "Spending":
        return Spending(*(_sum(one, more, sign) for one, more in zip(VALUES(self), VALUES(other), strict=True)))

    def words(self) -> str:
        """`1,200 requests, 800,000 input and 90,000 output tokens, $1.2345`."""
        known = f"at least ${self.known_usd:.4f}" if self.known_usd else "dollars unknown"
        usd = known if self.usd is None else f"${self.usd:.4f}"
        tokens = f"{self.input_tokens:,} input and {self.output_tokens:,} output tokens"
        return f"{self.requests:,} requests, {tokens}, {usd}"

    def counters(self) -> dict[str, Any]:
        """As `metrics.json` has them."""
        return {name: round(value, 9) if isinstance(value, float) else value for name, value in asdict(self).items()}


VALUES = attrgetter(*(each.name for each in fields(Spending)))


class Tally:
    """A sum that grows by a thousand additions a second."""

    def __init__(self) -> None:
        self._values = list(VALUES(Spending()))

    def add(self, more: Spending) -> None:
        for place, value in enumerate(VALUES(more)):
            if value or value is None:
                self._values[place] = _sum(self._values[place], value, 1)

    def sum(self) -> Spending:
        return Spending(*self._values)


def _sum(one: Any, other: Any, sign: int) -> Any:
    """Unknown as soon as one part is; counts by kind are added kind by kind."""
    if one is None or other is None:
        return None
    if isinstance(one, (int, float)):
        return one + sign * other
    sums = {kind: one.get(kind, 0) + sign * other.get(kind, 0) for kind in {**one, **other}}
    return {kind: count for kind, count in sums.items() if count}
