"""Accept until enough: candidates in flight side by side, settled in the order of their number."""

import asyncio
import textwrap
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from dsrl.core.errors import StageFailed
from dsrl.data.sample import Rejected, Sample
from dsrl.pipeline.progress.progress import Task as Shown
from dsrl.stages.generate.near_duplicates import Near

Attempt = Callable[[int], Awaitable[Sample | Rejected]]

FAIR_TRIAL = 100
"""Candidates before a low yield says anything."""
EXAMPLE_LENGTH = 200
DUPLICATE = "duplicate"


class Novelty(Protocol):
    """Says whether a sample is new beside those accepted before it, for more than equal texts."""

    def fault(self, text: str) -> str | None:
        """Why an input isn't new enough, in a few words; None: it is."""

    def add(self, text: str) -> None:
        """An input that was accepted."""


@dataclass(frozen=True)
class Patience:
    """How long a teacher is asked who brings next to nothing new."""

    min_yield: float = 0.0
    max_repeats: int | None = None

    def lost(self, settled: int, accepted: int, repeats: int) -> str | None:
        """Why nothing more is to be hoped for, in words; None as long as there is hope."""
        if self.max_repeats is not None and repeats >= self.max_repeats:
            return f"{repeats} duplicates in a row"
        if settled >= FAIR_TRIAL and accepted < self.min_yield * settled:
            return f"{accepted} of {settled} candidates accepted, fewer than {self.min_yield:.3g} of them"
        return None


@dataclass
class Harvest:
    """Outcomes settled by number, never by arrival, so that a resumed run ends in the same bytes."""

    stage: str
    seen: set[str] = field(default_factory=set)
    """Digests of inputs already there: a candidate that repeats one is rejected."""
    patience: Patience = Patience()
    near: Near = field(default_factory=lambda: Near(None))
    """The same by what they say: a candidate that nearly repeats one is rejected."""
    novelty: Novelty | None = None
    """A way of writing's own idea of what is new."""
    accepted: list[Sample] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    waiting: dict[int, Sample | Rejected] = field(default_factory=dict)
    """Finished, but one with a lower number isn't."""
    promising: int = 0
    """Samples among those that wait."""
    settled: int = 0
    """All candidates below this number are settled."""
    repeats: int = 0
    """Duplicates in a row up to the latest one settled."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Why candidates were rejected."""
    lost: str | None = None
    """Why the rest isn't tried; then nothing more is settled."""
    _moved: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, number: int, outcome: Sample | Rejected) -> None:
        self.waiting[number] = outcome
        self.promising += isinstance(outcome, Sample)
        while self.lost is None and self.settled in self.waiting:
            turn = self.waiting.pop(self.settled)
            self.promising -= isinstance(turn, Sample)
            self._settle(turn)
            self.settled += 1
            self.lost = self.patience.lost(self.settled, len(self.accepted), self.repeats)
        self._moved.set()

    async def before(self, number: int) -> list[Sample]:
        """Those accepted among the candidates below `number`, once all of these are settled."""
        while self.settled < number:
            self._moved.clear()
            await self._moved.wait()
        return [sample for sample in self.accepted if (sample.provenance.index or 0) < number]

    @property
    def hopeful(self) -> int:
        """Accepted ones, those that wait for their turn among them."""
        return len(self.accepted) + self.promising

    @property
    def reasons_text(self) -> str:
        """`12 x no majority, 3 x duplicate`."""
        return ", ".join(f"{count} x {reason}" for reason, count in self.reasons.most_common())

    @property
    def example(self) -> str | None:
        """The latest candidate that was rejected for the most frequent reason."""
        if not self.reasons:
            return None
        reason = self.reasons.most_common(1)[0][0]
        latest = next(candidate for candidate in reversed(self.rejected) if candidate.reason == reason)
        words = " | ".join(text for text in (latest.input, latest.detail) if text)
        return f"{reason}, for example: {textwrap.shorten(words, EXAMPLE_LENGTH)}"

    def _settle(self, outcome: Sample | Rejected) -> None:
        repeated = self._repeated(outcome)
        if isinstance(outcome, Sample) and repeated is None:
            self.seen.add(outcome.content_key)
            self.near.add(outcome)
            if self.novelty:
                self.novelty.add(outcome.input)
            self.accepted.append(outcome)
            self.repeats = 0
            return
        refused = repeated or outcome
        assert isinstance(refused, Rejected)
        self.repeats = self.repeats + 1 if repeated else 0
        self.rejected.append(refused)
        self.reasons[refused.reason] += 1

    def _repeated(self, outcome: Sample | Rejected) -> Rejected | None:
        """The record of an outcome that is no news, whatever its verifiers say."""
        if isinstance(outcome, Sample) and (fault := self._fault(outcome)):
            return duplicate(outcome, self.stage, fault)
        if outcome.images:
            return None
        return self.near.refusal(self.stage, outcome.input, outcome.parent_id, outcome.provenance)

    def _fault(self, sample: Sample) -> str | None:
        if sample.content_key in self.seen:
            return DUPLICATE
        return self.novelty.fault(sample.input) if self.novelty else None


async def accept_until(wanted: int, most: int, window: int, attempt: Attempt, harvest: Harvest, shown: Shown) -> None:
    """Try candidates 0, 1, ... until `wanted` are accepted or `most` were tried.

    A candidate is started only while those accepted and in flight are too few, so the candidates tried are exactly
    those up to the one that completes the set, however the calls overlap. `window` bounds those in flight. Ends early
    when the harvest is `lost`, by the candidates settled so far and so after the same one in every run.
    """
    flying: dict[int, asyncio.Task[Sample | Rejected]] = {}
    landed: asyncio.Queue[int] = asyncio.Queue()
    started = 0

    def start(number: int) -> None:
        flying[number] = asyncio.ensure_future(attempt(number))
        flying[number].add_done_callback(lambda _: landed.put_nowait(number))

    try:
        while True:
            while started < most and len(flying) < window and harvest.hopeful + len(flying) < wanted:
                start(started)
                started += 1
            if harvest.lost or not flying:
                return
            for number in sorted([await landed.get(), *(landed.get_nowait() for _ in range(landed.qsize()))]):
                harvest.add(number, flying.pop(number).result())
            shown.set(min(harvest.hopeful, wanted), tried=started, rejected=dict(harvest.reasons))
    finally:
        for task in flying.values():
            task.cancel()
        await asyncio.gather(*flying.values(), return_exceptions=True)


def duplicate(sample: Sample, stage: str, fault: str | None = None) -> Rejected:
    """The record of a sample whose input is there already, or one too like it."""
    return Rejected(
        stage=stage,
        reason=fault or DUPLICATE,
        detail="the same input as an earlier sample" if fault in (None, DUPLICATE) else "too like an earlier sample",
        input=sample.input,
        images=sample.images,
        answer=sample.answer,
        parent_id=sample.parent_id,
        votes=sample.votes,
        provenance=sample.provenance,
    )


def hopeless(harvest: Harvest, wanted: int, cure: str) -> StageFailed:
    """The error for a stage that gives up."""
    return StageFailed(
        f"{harvest.stage}: giving up after {harvest.settled} candidates: {harvest.lost}\n"
        f"  so far:  {len(harvest.accepted)} of {wanted} accepted; {harvest.reasons_text}",
        got=harvest.example,
        next_step=f"{cure}; what was paid for is kept and not paid again",
    )
