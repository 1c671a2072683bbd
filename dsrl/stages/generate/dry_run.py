"""Candidates rehearsed: the stage's own code on the replies that are in the store, as far as they go."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from dsrl.data.sample import Rejected, Sample
from dsrl.forecast.offline_clients import DryClient, Tally, UnpaidError
from dsrl.forecast.workload import CHARACTERS_PER_TOKEN, Held
from dsrl.llm import Endpoint, ReplyCache
from dsrl.stages.generate.duplicates import DuplicateFilter

Try = Callable[[int, DryClient], Awaitable[Sample | Rejected]]


@dataclass(frozen=True)
class Rehearsed:
    """One candidate on the replies that the store has."""

    outcome: Sample | Rejected | None
    """None where some reply is missing."""
    tally: Tally
    """Of the replies that are there."""
    weight: int = 1
    """Candidates that this one stands for."""


@dataclass
class Rehearsal:
    """The candidates that were tried on stored replies."""

    duplicates: DuplicateFilter = field(default_factory=DuplicateFilter)
    accepted: list[Sample] = field(default_factory=list)
    whole: list[Rehearsed] = field(default_factory=list)
    parts: list[Rehearsed] = field(default_factory=list)
    """Those that lack a reply."""
    num_accepted: int = 0
    """With those that the ones looked up stand for."""
    weights: dict[str, int] = field(default_factory=dict)
    """Id of an accepted sample -> how many it stands for."""
    empty_in_a_row: int = 0

    def add(self, tried: Rehearsed) -> None:
        self.empty_in_a_row = 0 if tried.tally.completions else self.empty_in_a_row + 1
        if tried.outcome is None:
            self.parts.append(tried)
            return
        self.whole.append(tried)
        if isinstance(tried.outcome, Sample) and not self.duplicates.check(tried.outcome, "forecast"):
            self.duplicates.add(tried.outcome)
            self.accepted.append(tried.outcome)
            self.num_accepted += tried.weight
            self.weights[tried.outcome.id] = tried.weight

    async def before(self, number: int) -> list[Sample]:
        """Those accepted so far among the candidates below `number`."""
        return [sample for sample in self.accepted if (sample.provenance.index or 0) < number]

    @property
    def num_tried(self) -> int:
        return sum(tried.weight for tried in (*self.whole, *self.parts))

    @property
    def num_whole(self) -> int:
        return sum(tried.weight for tried in self.whole)

    @property
    def hopeful(self) -> int:
        """Accepted, or still open."""
        return self.num_accepted + self.num_tried - self.num_whole

    @property
    def num_begun(self) -> int:
        """Those with any reply."""
        return sum(tried.weight for tried in (*self.whole, *self.parts) if tried.tally.completions)

    @property
    def held(self) -> Held:
        return sum((tried.tally.held * tried.weight for tried in (*self.whole, *self.parts)), Held())

    def characters_per_token(self) -> float:
        """Of first prompts, where some were billed."""
        billed = [tried.tally for tried in (*self.whole, *self.parts) if tried.tally.prompt_tokens]
        read = sum(tally.prompt_tokens for tally in billed)
        return sum(tally.prompt_characters for tally in billed) / read if read else CHARACTERS_PER_TOKEN

    def prompt_tokens(self) -> float:
        """Of a first prompt whose reply is still to be paid for; of any, where none is known to be."""
        known = self.parts or self.whole
        characters = sum(tried.tally.prompt_characters for tried in known) / len(known) if known else 0.0
        return characters / self.characters_per_token()


def longest_gap(endpoint: Endpoint) -> int:
    """Candidates without any stored reply in a row after which none is looked for any more: a run that was killed
    leaves gaps no longer than what it had in flight."""
    return 2 * endpoint.concurrency + 64


def spread(count: int, limit: int | None) -> Iterator[tuple[int, int]]:
    """Numbers below `count` with what each stands for: all, or about `limit`, densest where a pilot was."""
    dense = count if limit is None else min(count, limit // 2)
    yield from ((number, 1) for number in range(dense))
    step = max(1, -(-(count - dense) // max(1, (limit or count) - dense)))
    yield from ((number, min(step, count - number)) for number in range(dense, count, step))


async def rehearse(
    endpoint: Endpoint, calls: ReplyCache | None, number: int, attempt: Try, weight: int = 1
) -> Rehearsed:
    """Candidate `number` as far as the store's replies go."""
    client = DryClient(endpoint, calls)
    try:
        outcome: Sample | Rejected | None = await attempt(number, client)
    except UnpaidError:
        outcome = None
    return Rehearsed(outcome, client.tally, weight)
