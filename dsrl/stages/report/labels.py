"""How sure the teacher was of its labels, and how many of them may be wrong."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dsrl.core.estimate import wilson
from dsrl.data.sample import Rejected, Sample, Votes
from dsrl.llm.reply_cache.cache import ReplyCache
from dsrl.stages.report import formatting, svg
from dsrl.stages.report.difficulty import Panel
from dsrl.stages.report.label_noise import Tally, Teacher, fitted

BINS = 10
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
LOW_SHARE = "no majority"
"""Rejections that another minimum share would have spared."""
MOST_READ = 100
"""Samples whose votes are read out of the calls store for their length."""


@dataclass(frozen=True)
class Writer:
    """Does the answer that the writer gave win its own vote?"""

    agrees: int
    differs: int
    unknown: int
    """The writer's own answer could not be read."""
    disagreement: float | None
    low: float | None
    high: float | None

    @property
    def total(self) -> int:
        return self.agrees + self.differs + self.unknown


@dataclass(frozen=True)
class Threshold:
    """What a minimum share would keep of the candidates that were voted on."""

    min_share: float
    rows: float
    """Expected number, because votes that stopped early leave the share open."""
    expected_error: float | None
    """Expected share of wrong labels among them, by the votes alone."""
    writer: Writer
    """Of accepted samples with such a share so far."""


@dataclass(frozen=True)
class Saved:
    """What stopping early has saved."""

    asked: int
    planned: int
    tokens: int | None
    """Output tokens, at the mean length of the votes; None where no length is known."""


@dataclass(frozen=True)
class Measures:
    """The figures of the label report."""

    candidates: int
    accepted: int
    expected_error: float | None
    """Of the accepted labels."""
    writer: Writer
    saved: Saved
    thresholds: tuple[Threshold, ...]

    def block(self, audit: dict[str, Any] | None) -> dict[str, Any]:
        """For `metrics.json`."""
        return {**asdict(self), "thresholds": [asdict(row) for row in self.thresholds], "audit": audit}


@dataclass(frozen=True)
class Labels:
    """The votes of accepted and of rejected candidates, as the page shows them."""

    lead: str
    panels: tuple[Panel, ...]
    measures: Measures
    audit: dict[str, Any] | None
    """What a hand check found."""


def labels(
    samples: Sequence[Sample], rejected: Sequence[Rejected], calls: ReplyCache, audit: dict[str, Any] | None = None
) -> Labels | None:
    """None where nobody voted."""
    accepted = [sample.votes for sample in samples if sample.votes]
    refused = [candidate.votes for candidate in rejected if candidate.votes]
    if not accepted and not refused:
        return None
    measures = measured(samples, rejected, calls)
    panels = [_panel(title, votes) for title, votes in (("Accepted", accepted), ("Rejected", refused)) if votes]
    return Labels(_lead(measures), tuple(panels), measures, audit)


def measured(samples: Sequence[Sample], rejected: Sequence[Rejected], calls: ReplyCache) -> Measures:
    """The figures; some candidate must have been voted on."""
    accepted = [sample.votes for sample in samples if sample.votes]
    refused = [(candidate.reason, candidate.votes) for candidate in rejected if candidate.votes]
    everybody = [*accepted, *(votes for _, votes in refused)]
    spared = [votes for reason, votes in refused if reason == LOW_SHARE]
    teacher = fitted(everybody)
    asked, planned = sum(vote.asked for vote in everybody), sum(vote.planned for vote in everybody)
    length = vote_length(samples, calls)
    return Measures(
        candidates=len(everybody),
        accepted=len(accepted),
        expected_error=_expected_error(accepted, teacher),
        writer=writer(accepted),
        saved=Saved(asked, planned, None if length is None else round(length * (planned - asked))),
        thresholds=tuple(threshold(share, accepted, spared, teacher) for share in THRESHOLDS),
    )


def _expected_error(accepted: Sequence[Votes], teacher: Teacher) -> float | None:
    tallies = Counter(map(Tally.of, accepted))
    return sum(number * teacher.error(tally) for tally, number in tallies.items()) / len(accepted) if accepted else None


def threshold(share: float, accepted: Sequence[Votes], spared: Sequence[Votes], teacher: Teacher) -> Threshold:
    """What a minimum share of `share` would keep."""
    rows = wrong = 0.0
    for tally, number in Counter(map(Tally.of, (*accepted, *spared))).items():
        as_right, as_wrong = teacher.kept(tally, share)
        rows += number * (as_right + as_wrong)
        wrong += number * as_wrong
    return Threshold(
        min_share=share,
        rows=round(rows, 1),
        expected_error=wrong / rows if rows else None,
        writer=writer([votes for votes in accepted if (agreement(votes) or 0.0) >= share]),
    )


def writer(votes: Sequence[Votes]) -> Writer:
    """How often the writer's own answer differs from the label, among those that could be read."""
    said = [vote.generator_agrees for vote in votes]
    agrees, differs = said.count(True), said.count(False)
    known = agrees + differs
    if not known:
        return Writer(agrees, differs, said.count(None), None, None, None)
    return Writer(agrees, differs, said.count(None), differs / known, *wilson(differs / known, known))


def vote_length(samples: Sequence[Sample], calls: ReplyCache) -> float | None:
    """Mean output tokens of a vote, over the first samples whose votes are in the calls store."""
    lengths: list[int] = []
    for sample in [sample for sample in samples if sample.votes and sample.provenance.calls][:MOST_READ]:
        digest = sample.provenance.calls[-1].rpartition(":")[0]
        votes = [call for call in sample.provenance.calls if call.startswith(f"{digest}:")]
        replies = (calls.get(digest, int(call.rpartition(":")[2])) for call in votes)
        lengths += [reply.usage.output_tokens for reply in replies if reply is not None]
    return sum(lengths) / len(lengths) if any(lengths) else None


def agreement(votes: Votes) -> float | None:
    """Share of the answers received that went to the first; in a full vote this is `share`."""
    received = votes.asked - votes.failed
    return max(votes.counts.values(), default=0) / received if received else None


def _lead(measures: Measures) -> str:
    words = (
        "How many of the teacher's own answers agree with each other, over "
        f"{formatting.plural(measures.candidates, 'candidate')}."
    )
    saved = measures.saved
    if saved.asked < saved.planned:
        share = formatting.percent(1 - saved.asked / saved.planned, 0)
        tokens = f", about {formatting.count(saved.tokens)} output tokens" if saved.tokens else ""
        words += f" Votes stopped as soon as they were decided, which saved {share} of them{tokens}."
    return words


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
    note = f"{formatting.count(sum(whole))} full votes, {formatting.count(sum(early))} stopped early"
    return Panel(title, note, svg.histogram(slots, label=f"{title}: share of answers that agree, {note}"))


def _counts(votes: Sequence[Votes]) -> list[int]:
    """Ten steps below 1, and 1 apart."""
    places = [int(share * BINS) for share in map(agreement, votes) if share is not None]
    return [places.count(number) for number in range(BINS + 1)]


def _range(number: int) -> str:
    return "all agree" if number == BINS else f"{number / BINS:.0%} to {(number + 1) / BINS:.0%} agree"
