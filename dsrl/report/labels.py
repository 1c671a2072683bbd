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
    words = f"Share of the teacher's answers that agree on the label, over {text.plural(len(votes), 'candidate')}."
    if asked < planned:
        saved = 1 - asked / planned
        words += (
            f" Votes stopped when nothing could change any more, which saved {text.percent(saved, 0)} of them; "
            "the share of such a vote is a lower bound."
        )
    return words


def _panel(title: str, votes: Sequence[Votes]) -> Panel:
    whole = _counts([vote.share for vote in votes if not vote.censored])
    bounds = _counts([vote.share for vote in votes if vote.censored])
    ticks = {0: "0", BINS // 2: "", BINS - 1: "1"}
    slots = [
        svg.Slot(
            (
                svg.Bar(whole[i], f"{_range(i)}: {whole[i]} full votes", "bar"),
                svg.Bar(bounds[i], f"{_range(i)}: {bounds[i]} stopped early", "bar soft", below=whole[i]),
            ),
            ticks.get(i, ""),
        )
        for i in range(BINS)
    ]
    note = f"{text.count(sum(whole))} full, {text.count(sum(bounds))} stopped early"
    return Panel(title, note, svg.histogram(slots, label=f"{title}: vote shares, {note}"))


def _counts(shares: Sequence[float]) -> list[int]:
    places = [min(int(share * BINS), BINS - 1) for share in shares]
    return [places.count(number) for number in range(BINS)]


def _range(number: int) -> str:
    return f"share {number / BINS:.1f} to {(number + 1) / BINS:.1f}"


def _agreement(votes: Sequence[Votes]) -> Agreement | None:
    said = [vote.generator_agrees for vote in votes]
    if all(agrees is None for agrees in said):
        return None
    return Agreement(agrees=said.count(True), differs=said.count(False), unknown=said.count(None))
