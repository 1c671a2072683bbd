"""Accept until enough: candidates in flight side by side, settled in the order of their number."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from dsrl.digest import text_digest
from dsrl.progress import Task as Shown
from dsrl.sample import Rejected, Sample

Attempt = Callable[[int], Awaitable[Sample | Rejected]]


@dataclass
class Harvest:
    """Outcomes settled by number, never by arrival, so that a resumed run ends in the same bytes."""

    stage: str
    seen: set[str] = field(default_factory=set)
    """Digests of inputs already there: a candidate that repeats one is rejected."""
    accepted: list[Sample] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    waiting: dict[int, Sample | Rejected] = field(default_factory=dict)
    """Finished, but one with a lower number isn't."""
    settled: int = 0
    """All candidates below this number are settled."""

    def add(self, number: int, outcome: Sample | Rejected) -> None:
        self.waiting[number] = outcome
        while self.settled in self.waiting:
            self._settle(self.waiting.pop(self.settled))
            self.settled += 1

    @property
    def hopeful(self) -> int:
        """Accepted ones, those that wait for their turn among them."""
        return len(self.accepted) + sum(isinstance(outcome, Sample) for outcome in self.waiting.values())

    def _settle(self, outcome: Sample | Rejected) -> None:
        if isinstance(outcome, Rejected):
            self.rejected.append(outcome)
        elif (digest := text_digest(outcome.input)) in self.seen:
            self.rejected.append(duplicate(outcome, self.stage))
        else:
            self.seen.add(digest)
            self.accepted.append(outcome)


async def accept_until(wanted: int, most: int, window: int, attempt: Attempt, harvest: Harvest, shown: Shown) -> None:
    """Try candidates 0, 1, ... until `wanted` are accepted or `most` were tried.

    A candidate is started only while those accepted and in flight are too few, so the candidates tried are exactly
    those up to the one that completes the set, however the calls overlap. `window` bounds those in flight.
    """
    flying: dict[asyncio.Task[Sample | Rejected], int] = {}
    started = 0
    try:
        while True:
            while started < most and len(flying) < window and harvest.hopeful + len(flying) < wanted:
                flying[asyncio.ensure_future(attempt(started))] = started
                started += 1
            if not flying:
                return
            done, _ = await asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=flying.__getitem__):
                harvest.add(flying.pop(task), task.result())
            shown.set(min(harvest.hopeful, wanted), tried=started, rejected=len(harvest.rejected))
    finally:
        for task in flying:
            task.cancel()
        await asyncio.gather(*flying, return_exceptions=True)


def duplicate(sample: Sample, stage: str) -> Rejected:
    """The record of a sample whose input is there already."""
    return Rejected(
        stage=stage,
        reason="duplicate",
        detail="the same input as an earlier sample",
        input=sample.input,
        answer=sample.answer,
        parent_id=sample.parent_id,
        votes=sample.votes,
        provenance=sample.provenance,
    )
