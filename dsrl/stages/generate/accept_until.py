"""Accept until enough: candidates run concurrently and are resolved in the order of their number."""

import asyncio
import textwrap
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from dsrl.core.errors import StageFailed
from dsrl.data.sample import Rejected, Sample
from dsrl.pipeline.progress.progress import Task as ProgressTask
from dsrl.stages.generate.duplicates import DuplicateFilter

Attempt = Callable[[int], Awaitable[Sample | Rejected]]

MIN_CANDIDATES = 100
"""Candidates before a low yield means anything."""
EXAMPLE_LENGTH = 200


@dataclass(frozen=True)
class StopRule:
    """When to stop paying for candidates because next to nothing new comes."""

    min_yield: float = 0.0
    """Least share of accepted candidates, from a hundred candidates on."""
    max_repeats: int | None = None
    """Duplicates in a row."""

    def reason_to_stop(self, resolved: int, accepted: int, repeats: int) -> str | None:
        if self.max_repeats is not None and repeats >= self.max_repeats:
            return f"{repeats} duplicates in a row"
        if resolved >= MIN_CANDIDATES and accepted < self.min_yield * resolved:
            return f"{accepted} of {resolved} candidates accepted, fewer than {self.min_yield:.3g} of them"
        return None


@dataclass
class OrderedResults:
    """Candidates resolved by number, never by arrival, so that a resumed run ends in the same bytes."""

    stage: str
    duplicates: DuplicateFilter = field(default_factory=DuplicateFilter)
    stop_rule: StopRule = StopRule()
    accepted: list[Sample] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    """Rejections by reason."""
    num_resolved: int = 0
    """All candidates below this number are resolved."""
    num_repeats: int = 0
    """Duplicates in a row up to the latest resolved candidate."""
    stop_reason: str | None = None
    """Set by the stop rule; nothing is resolved after that."""
    num_pending_samples: int = 0
    """Samples among the outcomes that wait for a lower number."""
    _pending: dict[int, Sample | Rejected] = field(default_factory=dict)
    _progress: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, number: int, outcome: Sample | Rejected) -> None:
        """Record the outcome of candidate `number`, and resolve all whose turn has come."""
        self._pending[number] = outcome
        self.num_pending_samples += isinstance(outcome, Sample)
        while self.stop_reason is None and self.num_resolved in self._pending:
            due = self._pending.pop(self.num_resolved)
            self.num_pending_samples -= isinstance(due, Sample)
            self._resolve(due)
            self.num_resolved += 1
            self.stop_reason = self.stop_rule.reason_to_stop(self.num_resolved, len(self.accepted), self.num_repeats)
        self._progress.set()

    def _resolve(self, outcome: Sample | Rejected) -> None:
        duplicate = self.duplicates.check(outcome, self.stage)
        if isinstance(outcome, Sample) and duplicate is None:
            self.duplicates.add(outcome)
            self.accepted.append(outcome)
            self.num_repeats = 0
            return
        rejected = duplicate or outcome
        assert isinstance(rejected, Rejected)
        self.num_repeats = self.num_repeats + 1 if duplicate else 0
        self.rejected.append(rejected)
        self.reasons[rejected.reason] += 1

    async def accepted_before(self, number: int) -> list[Sample]:
        """The accepted samples among the candidates below `number`, once all of these are resolved."""
        while self.num_resolved < number:
            self._progress.clear()
            await self._progress.wait()
        return [sample for sample in self.accepted if (sample.provenance.index or 0) < number]

    @property
    def num_potential(self) -> int:
        """Accepted samples and those that wait for their turn."""
        return len(self.accepted) + self.num_pending_samples

    def describe_reasons(self) -> str:
        """`12 x no majority, 3 x duplicate`."""
        return ", ".join(f"{count} x {reason}" for reason, count in self.reasons.most_common())

    def example(self) -> str | None:
        """The latest candidate that was rejected for the most frequent reason."""
        if not self.reasons:
            return None
        reason = self.reasons.most_common(1)[0][0]
        latest = next(candidate for candidate in reversed(self.rejected) if candidate.reason == reason)
        words = " | ".join(text for text in (latest.input, latest.detail) if text)
        return f"{reason}, for example: {textwrap.shorten(words, EXAMPLE_LENGTH)}"

    def failure(self, num_wanted: int, next_step: str) -> StageFailed:
        """The error for a stage that the stop rule ended."""
        return StageFailed(
            f"{self.stage}: giving up after {self.num_resolved} candidates: {self.stop_reason}\n"
            f"  so far:  {len(self.accepted)} of {num_wanted} accepted; {self.describe_reasons()}",
            got=self.example(),
            next_step=f"{next_step}; what was paid for is kept and not paid again",
        )


async def accept_until(
    num_wanted: int,
    max_attempts: int,
    window: int,
    attempt: Attempt,
    results: OrderedResults,
    progress: ProgressTask,
) -> None:
    """Try candidates 0, 1, ... until `num_wanted` are accepted or `max_attempts` were tried, `window` at a time.

    A candidate starts only while accepted ones and those in flight are too few, so exactly the candidates up to the one
    that completes the set are tried, however the calls overlap. The stop rule looks at resolved candidates only and so
    ends every run after the same one.
    """
    in_flight: dict[int, asyncio.Task[Sample | Rejected]] = {}
    done: asyncio.Queue[int] = asyncio.Queue()
    started = 0

    def start(number: int) -> None:
        in_flight[number] = asyncio.ensure_future(attempt(number))
        in_flight[number].add_done_callback(lambda _: done.put_nowait(number))

    try:
        while True:
            while started < max_attempts and len(in_flight) < window:
                if results.num_potential + len(in_flight) >= num_wanted:
                    break
                start(started)
                started += 1
            if results.stop_reason or not in_flight:
                return
            for number in sorted([await done.get(), *(done.get_nowait() for _ in range(done.qsize()))]):
                results.add(number, in_flight.pop(number).result())
            progress.set(min(results.num_potential, num_wanted), tried=started, rejected=dict(results.reasons))
    finally:
        for task in in_flight.values():
            task.cancel()
        await asyncio.gather(*in_flight.values(), return_exceptions=True)
