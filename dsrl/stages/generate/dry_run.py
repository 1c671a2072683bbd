"""Dry run of candidates: the stage's own code with the replies in the cache, as far as they go."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from dsrl.data.sample import Rejected, Sample
from dsrl.forecast.offline_clients import CacheOnlyClient, NotCachedError, Usage
from dsrl.forecast.workload import CHARACTERS_PER_TOKEN, CachedUsage
from dsrl.llm import Endpoint, ReplyCache
from dsrl.stages.generate.duplicates import DuplicateFilter

Attempt = Callable[[int, CacheOnlyClient], Awaitable[Sample | Rejected]]


@dataclass(frozen=True)
class DryCandidate:
    outcome: Sample | Rejected | None
    """None if a reply isn't cached."""
    usage: Usage
    """Usage of the cached replies."""
    weight: int = 1
    """Number of candidates that this one stands for."""


@dataclass
class DryRun:
    """Candidates tried on cached replies."""

    duplicates: DuplicateFilter = field(default_factory=DuplicateFilter)
    accepted: list[Sample] = field(default_factory=list)
    complete: list[DryCandidate] = field(default_factory=list)
    incomplete: list[DryCandidate] = field(default_factory=list)
    """Candidates that lack a reply."""
    num_accepted: int = 0
    """Weighted, as are the other counts."""
    weights: dict[str, int] = field(default_factory=dict)
    """Id of an accepted sample -> its weight."""
    empty_in_a_row: int = 0
    """Last candidates without any cached reply."""

    def add(self, candidate: DryCandidate) -> None:
        self.empty_in_a_row = 0 if candidate.usage.completions else self.empty_in_a_row + 1
        if candidate.outcome is None:
            self.incomplete.append(candidate)
            return
        self.complete.append(candidate)
        if isinstance(candidate.outcome, Sample) and not self.duplicates.check(candidate.outcome, "forecast"):
            self.duplicates.add(candidate.outcome)
            self.accepted.append(candidate.outcome)
            self.num_accepted += candidate.weight
            self.weights[candidate.outcome.id] = candidate.weight

    async def before(self, number: int) -> list[Sample]:
        """Samples accepted so far among the candidates below `number`."""
        return [sample for sample in self.accepted if (sample.provenance.index or 0) < number]

    @property
    def tried(self) -> list[DryCandidate]:
        return [*self.complete, *self.incomplete]

    @property
    def num_complete(self) -> int:
        return sum(candidate.weight for candidate in self.complete)

    @property
    def num_possible(self) -> int:
        """Candidates that were accepted or may still be."""
        return self.num_accepted + sum(candidate.weight for candidate in self.incomplete)

    @property
    def num_begun(self) -> int:
        """Candidates with at least one cached reply."""
        return sum(candidate.weight for candidate in self.tried if candidate.usage.completions)

    @property
    def cached(self) -> CachedUsage:
        return sum((candidate.usage.cached * candidate.weight for candidate in self.tried), CachedUsage())

    def characters_per_token(self) -> float:
        """Measured on first prompts that were billed."""
        billed = [candidate.usage for candidate in self.tried if candidate.usage.prompt_tokens]
        read = sum(usage.prompt_tokens for usage in billed)
        return sum(usage.prompt_characters for usage in billed) / read if read else CHARACTERS_PER_TOKEN

    def prompt_tokens(self) -> float:
        """Mean length of a first prompt, preferably of one that is still to be sent."""
        known = self.incomplete or self.complete
        characters = sum(candidate.usage.prompt_characters for candidate in known) / len(known) if known else 0.0
        return characters / self.characters_per_token()


def max_gap(endpoint: Endpoint) -> int:
    """Candidates without a cached reply in a row after which the dry run ends. A killed run leaves no longer gaps."""
    return 2 * endpoint.concurrency + 64


def spread(count: int, limit: int | None) -> Iterator[tuple[int, int]]:
    """Yield numbers below `count` and their weights: all, or about `limit`, the first ones (of a pilot) densely."""
    dense = count if limit is None else min(count, limit // 2)
    yield from ((number, 1) for number in range(dense))
    step = max(1, -(-(count - dense) // max(1, (limit or count) - dense)))
    yield from ((number, min(step, count - number)) for number in range(dense, count, step))


async def try_candidate(
    endpoint: Endpoint, calls: ReplyCache | None, number: int, attempt: Attempt, weight: int = 1
) -> DryCandidate:
    """Run candidate `number` on cached replies."""
    client = CacheOnlyClient(endpoint, calls)
    try:
        outcome: Sample | Rejected | None = await attempt(number, client)
    except NotCachedError:
        outcome = None
    return DryCandidate(outcome, client.usage, weight)
