"""How sure the teacher was of its labels."""

from collections.abc import Sequence
from dataclasses import dataclass

from dsrl.report import svg, text
from dsrl.report.difficulty import Panel
from dsrl.sample import Rejected, Sample, Votes

BINS = 10


@dataclass(frozen=True)
class Agreement:
    """Does the answer that the writer gave win its own vote?"""

    agrees: int
    differs: int
    unknown: int

    @property
    def total(self) -> int:
        return self.agrees + self.differs + self.unknown


@dataclass(frozen=True)
class Labels:
    """The votes of accepted and of rejected candidates."""

    lead: str
    panels: tuple[Panel, ...]
    agreement: Agreement | None


def labels(samples: Sequence[Sample], rejected: Sequence[Rejected]) -> Labels | None:
    """None where nobody voted."""
    accepted = [sample.votes for sample in samples if sample.votes]
    refused = [candidate.votes for candidate in rejected if candidate.votes]
    if not accepted and not refused:
        return None
    panels = [_panel(title, votes) for title, votes in (("Accepted", accepted), ("Rejected", refused)) if votes]
    return Labels(lead=_lead(accepted + refused), panels=tuple(panels), agreement=_agreement(accepted))


def _lead(votes: Sequence[Votes]) -> str:
    asked, planned = sum(vote.asked for vote in votes), sum(vote.planned for vote in votes)
    words = f"How many of the teacher's own answers agree with each other, over {text.plural(len(votes), 'candidate')}."
    if asked < planned:
        saved = text.percent(1 - asked / planned, 0)
        words += f" Votes stopped when nothing could change any more, which saved {saved} of them."
    return words


def agreement(votes: Votes) -> float | None:
    """Share of the answers received that went to the first; in a full vote this is `share`."""
    received = votes.asked - votes.failed
    return max(votes.counts.values(), default=0) / received if received else None


def _panel(title: str, votes: Sequence[Votes]) -> Panel:
    whole = _counts([vote for vote in votes if not vote.censored])
    early = _counts([vote for vote in votes if vote.censored])
    ticks = {0: "none", BINS // 2: "half", BINS: "all agree"}
    slots = [
        svg.Slot(
            (
                svg.Bar(whole[i], f"{_range(i)}: {whole[i]} full votes", "bar"),
                svg.Bar(early[i], f"{_range(i)}: {early[i]} stopped early", "bar soft", below=whole[i]),
            ),
            tick=ticks.get(i, ""),
            gap=0.5 if i == BINS else 0.0,
        )
        for i in range(BINS + 1)
    ]
    note = f"{text.count(sum(whole))} full votes, {text.count(sum(early))} stopped early"
    return Panel(title, note, svg.histogram(slots, label=f"{title}: share of answers that agree, {note}"))


def _counts(votes: Sequence[Votes]) -> list[int]:
    """Ten steps below 1, and 1 apart."""
    places = [int(share * BINS) for share in map(agreement, votes) if share is not None]
    return [places.count(number) for number in range(BINS + 1)]


def _range(number: int) -> str:
    return "all agree" if number == BINS else f"{number / BINS:.0%} to {(number + 1) / BINS:.0%} agree"


def _agreement(votes: Sequence[Votes]) -> Agreement | None:
    said = [vote.generator_agrees for vote in votes]
    if all(agrees is None for agrees in said):
        return None
    return Agreement(agrees=said.count(True), differs=said.count(False), unknown=said.count(None))
