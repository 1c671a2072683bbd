"""How certain the teacher's labels are, and how many are probably wrong. See docs/labels.md.

The error estimate fits a model to the votes of all candidates. Each question has its own chance that an answer of the
teacher is correct, drawn from a Beta distribution. An answer that is not correct is unreadable with a constant chance;
otherwise it is one of several wrong answers, whose shares are drawn from a symmetric Dirichlet distribution.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from dsrl.core.statistics import wilson_interval
from dsrl.data.sample import Rejected, Sample, Votes
from dsrl.llm.reply_cache.cache import ReplyCache
from dsrl.stages.report import formatting, svg
from dsrl.stages.report.svg import Panel

BINS = 10
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
LOW_SHARE = "no majority"
"""Rejection reason that depends on the minimum share."""
MAX_READ = 100
"""Samples whose votes are read from the reply cache to estimate their length."""

MAX_FITTED = 1000
"""Candidates that the model is fitted to; with more, every k-th is used."""
FIT_ROUNDS = 6
MEANS = (*(percent / 100 for percent in range(50, 100)), 0.995, 0.999)
STRENGTHS = tuple(2 ** (step / 2) for step in range(-2, 19))
WRONG = tuple(
    {"options": options, "evenness": evenness}
    for options in (1, 2, 3, 4, 9, 1000)
    for evenness in (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 300.0, 3000.0)
)
UNREADABLE = (0.001, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 0.99)
GRID: tuple[Sequence[Mapping[str, Any]], ...] = (
    [{"mean": mean} for mean in MEANS],
    [{"strength": strength} for strength in STRENGTHS],
    WRONG,
    [{"unreadable": share} for share in UNREADABLE],
)
"""Values that the fit tries, one parameter (or pair) after the other."""


@dataclass(frozen=True)
class GeneratorAgreement:
    """Whether the generator's own answer wins the vote. Field names are those of `metrics.json`."""

    agrees: int
    differs: int
    unknown: int
    """The generator's answer could not be read."""
    disagreement: float | None
    """Share of `differs` among the readable answers, with its 95 % interval."""
    low: float | None
    high: float | None

    @property
    def total(self) -> int:
        return self.agrees + self.differs + self.unknown


@dataclass(frozen=True)
class Threshold:
    """What a minimum vote share would keep of the candidates."""

    min_share: float
    rows: float
    """Expected number, because votes that stopped early leave the share open."""
    expected_error: float | None
    """Expected share of wrong labels among these rows."""
    writer: GeneratorAgreement
    """Over accepted samples whose share so far is at least `min_share`."""


@dataclass(frozen=True)
class SavedVotes:
    """Votes that early stopping saved."""

    asked: int
    planned: int
    tokens: int | None
    """Output tokens, estimated from the mean length of the votes; None if no length is known."""


@dataclass(frozen=True)
class LabelFigures:
    """The block `labels` of `metrics.json`."""

    candidates: int
    accepted: int
    expected_error: float | None
    """Expected share of wrong labels among accepted samples."""
    writer: GeneratorAgreement
    saved: SavedVotes
    thresholds: tuple[Threshold, ...]

    def metrics(self, audit: dict[str, Any] | None) -> dict[str, Any]:
        return {**asdict(self), "thresholds": [asdict(row) for row in self.thresholds], "audit": audit}


@dataclass(frozen=True)
class LabelSection:
    """Votes of accepted and rejected candidates."""

    lead: str
    panels: tuple[Panel, ...]
    figures: LabelFigures
    audit: dict[str, Any] | None
    """Result of a manual audit."""


def labels(
    samples: Sequence[Sample], rejected: Sequence[Rejected], calls: ReplyCache, audit: dict[str, Any] | None = None
) -> LabelSection | None:
    """None without votes."""
    accepted = [sample.votes for sample in samples if sample.votes]
    refused = [candidate.votes for candidate in rejected if candidate.votes]
    if not accepted and not refused:
        return None
    figures = label_figures(samples, rejected, calls)
    lead = (
        "How far the teacher's own answers agree with each other, over "
        f"{formatting.plural(figures.candidates, 'candidate')}."
    )
    saved = figures.saved
    if saved.asked < saved.planned:
        share = formatting.percent(1 - saved.asked / saved.planned, 0)
        tokens = f", about {formatting.count(saved.tokens)} output tokens" if saved.tokens else ""
        lead += f" Early stopping saved {share} of the votes{tokens}."
    panels = [_panel(title, votes) for title, votes in (("Accepted", accepted), ("Rejected", refused)) if votes]
    return LabelSection(lead, tuple(panels), figures, audit)


def label_figures(samples: Sequence[Sample], rejected: Sequence[Rejected], calls: ReplyCache) -> LabelFigures:
    """Compute all figures. Some candidate must have been voted on."""
    accepted = [sample.votes for sample in samples if sample.votes]
    refused = [(candidate.reason, candidate.votes) for candidate in rejected if candidate.votes]
    candidates = [*accepted, *(votes for _, votes in refused)]
    model = fit_vote_model(candidates)
    accepted_counts = Counter(map(VoteCounts.of, accepted))
    errors = sum(number * model.label_error(counts) for counts, number in accepted_counts.items())
    asked, planned = sum(votes.asked for votes in candidates), sum(votes.planned for votes in candidates)
    length = mean_vote_length(samples, calls)
    return LabelFigures(
        candidates=len(candidates),
        accepted=len(accepted),
        expected_error=errors / len(accepted) if accepted else None,
        writer=generator_agreement(accepted),
        saved=SavedVotes(asked, planned, None if length is None else round(length * (planned - asked))),
        thresholds=_thresholds(accepted, [votes for reason, votes in refused if reason == LOW_SHARE], model),
    )


def _thresholds(accepted: Sequence[Votes], below_share: Sequence[Votes], model: "VoteModel") -> tuple[Threshold, ...]:
    """What each minimum share would keep of the accepted candidates and of those rejected for their share."""
    correct, wrong = [0.0] * len(THRESHOLDS), [0.0] * len(THRESHOLDS)
    for counts, number in Counter(map(VoteCounts.of, (*accepted, *below_share))).items():
        for place, (as_correct, as_wrong) in enumerate(model.keep_chances(counts, THRESHOLDS)):
            correct[place] += number * as_correct
            wrong[place] += number * as_wrong
    return tuple(
        Threshold(
            min_share=share,
            rows=round(correct[place] + wrong[place], 1),
            expected_error=wrong[place] / rows if (rows := correct[place] + wrong[place]) else None,
            writer=generator_agreement([votes for votes in accepted if (vote_agreement(votes) or 0.0) >= share]),
        )
        for place, share in enumerate(THRESHOLDS)
    )


def generator_agreement(votes: Sequence[Votes]) -> GeneratorAgreement:
    answers = [vote.generator_agrees for vote in votes]
    agrees, differs, unknown = answers.count(True), answers.count(False), answers.count(None)
    known = agrees + differs
    if not known:
        return GeneratorAgreement(agrees, differs, unknown, None, None, None)
    return GeneratorAgreement(agrees, differs, unknown, differs / known, *wilson_interval(differs / known, known))


def mean_vote_length(samples: Sequence[Sample], calls: ReplyCache) -> float | None:
    """Mean output tokens of a vote, over the first samples whose votes are in the reply cache."""
    lengths: list[int] = []
    for sample in [sample for sample in samples if sample.votes and sample.provenance.calls][:MAX_READ]:
        digest = sample.provenance.calls[-1].rpartition(":")[0]
        votes = [call for call in sample.provenance.calls if call.startswith(f"{digest}:")]
        replies = (calls.get(digest, int(call.rpartition(":")[2])) for call in votes)
        lengths += [reply.usage.output_tokens for reply in replies if reply is not None]
    return sum(lengths) / len(lengths) if any(lengths) else None


def vote_agreement(votes: Votes) -> float | None:
    """Share of the answers received that went to the leader. In a full vote this is `share`."""
    received = votes.asked - votes.failed
    return max(votes.counts.values(), default=0) / received if received else None


def _panel(title: str, votes: Sequence[Votes]) -> Panel:
    """A histogram of agreement in ten steps below 1, and 1 apart."""

    def heights(own: Sequence[Votes]) -> list[int]:
        bins = Counter(int(share * BINS) for share in map(vote_agreement, own) if share is not None)
        return [bins[number] for number in range(BINS + 1)]

    full, early = (heights([vote for vote in votes if vote.censored is stopped]) for stopped in (False, True))
    ticks = {0: "none", BINS // 2: "half", BINS: "all agree"}
    slots = []
    for number in range(BINS + 1):
        label = "all agree" if number == BINS else f"{number / BINS:.0%} to {(number + 1) / BINS:.0%} agree"
        bars = (
            svg.Bar(full[number], f"{label}: {full[number]} full votes", "bar"),
            svg.Bar(early[number], f"{label}: {early[number]} stopped early", "bar soft", below=full[number]),
        )
        slots.append(svg.Slot(bars, tick=ticks.get(number, ""), gap=0.5 if number == BINS else 0.0))
    note = f"{formatting.count(sum(full))} full votes, {formatting.count(sum(early))} stopped early"
    return Panel(title, note, svg.histogram(slots, label=f"{title}: share of answers that agree, {note}"))


@dataclass(frozen=True)
class VoteCounts:
    """The votes on one candidate, without the answers themselves."""

    answers: tuple[int, ...]
    """Votes for each answer, the leader first."""
    unparsable: int
    left: int
    """Votes that a full vote would still ask for."""

    @classmethod
    def of(cls, votes: Votes) -> "VoteCounts":
        return cls(tuple(sorted(votes.counts.values(), reverse=True)), votes.unparsable, votes.planned - votes.asked)

    @property
    def first(self) -> int:
        return self.answers[0] if self.answers else 0

    @property
    def readable(self) -> int:
        return sum(self.answers)

    @property
    def received(self) -> int:
        return self.readable + self.unparsable


@dataclass(frozen=True)
class VoteModel:
    """A teacher's votes on one task."""

    mean: float = 0.9
    """Mean chance that an answer is correct; assumed to be at least a half."""
    strength: float = 8.0
    """Sum of the Beta distribution's parameters: the higher, the more alike the questions."""
    options: int = 1000
    """Wrong answers to a question."""
    evenness: float = 3.0
    """Sum of the Dirichlet distribution's parameters: the higher, the less wrong answers repeat each other."""
    unreadable: float = 0.1
    """Share of unreadable answers among those that are not correct."""

    @cached_property
    def alpha(self) -> float:
        return self.mean * self.strength

    @cached_property
    def beta(self) -> float:
        return (1 - self.mean) * self.strength

    def log_likelihood(self, votes: VoteCounts, correct: int | None) -> float:
        """Of these votes, if the answer at place `correct` is the correct one; None: it got no vote."""
        others = [count for place, count in enumerate(votes.answers) if place != correct]
        hits = votes.readable - sum(others)
        chance = log_beta(self.alpha + hits, self.beta + votes.received - hits) - log_beta(self.alpha, self.beta)
        chance += votes.unparsable * math.log(self.unreadable) + sum(others) * math.log(1 - self.unreadable)
        return chance + log_dirichlet_multinomial(others, self.options, self.evenness)

    def log_likelihoods(self, votes: VoteCounts) -> list[float]:
        """For each answer being the correct one, and last for none of them."""
        return [self.log_likelihood(votes, place) for place in (*range(len(votes.answers)), None)]

    def label_error(self, votes: VoteCounts) -> float:
        """Chance that the answer with the most votes is wrong."""
        if not votes.answers:
            return 1.0
        logs = self.log_likelihoods(votes)
        return -math.expm1(logs[0] - log_sum_exp(logs))

    def keep_chances(self, votes: VoteCounts, shares: Sequence[float]) -> list[tuple[float, float]]:
        """For each share, the chance that the leader reaches it in a full vote as a correct answer, and as a wrong
        one."""
        from scipy.stats import betabinom

        tied = votes.left == 0 and votes.answers[:1] == votes.answers[1:2]
        if not votes.answers or tied:
            return [(0.0, 0.0)] * len(shares)
        error, others = self.label_error(votes), votes.received - votes.first
        total = votes.received + votes.left
        below = [math.ceil(share * total - 1e-9) - votes.first - 1 for share in shares]
        as_correct = betabinom.sf(below, votes.left, self.alpha + votes.first, self.beta + others)
        as_wrong = betabinom.sf(below, votes.left, votes.first, others + 1.0)
        pairs = zip(as_correct.tolist(), as_wrong.tolist(), strict=True)
        return [((1 - error) * correct, error * wrong) for correct, wrong in pairs]


def fit_vote_model(votes: Iterable[Votes]) -> VoteModel:
    """The maximum-likelihood model on the grid, by coordinate ascent."""
    counts = [replace(VoteCounts.of(vote), left=0) for vote in votes if vote.asked > vote.failed]
    patterns = Counter(counts[:: 1 + len(counts) // MAX_FITTED])

    def log_likelihood(model: VoteModel) -> float:
        return sum(number * log_sum_exp(model.log_likelihoods(own)) for own, number in patterns.items())

    model = VoteModel()
    for _ in range(FIT_ROUNDS):
        before = model
        for values in GRID:
            model = max((replace(model, **value) for value in values), key=log_likelihood)
        if model == before:
            break
    return model


def log_beta(a: float, b: float) -> float:
    """scipy's `betaln` takes 40 times as long for single numbers, and the fit needs a million."""
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def log_sum_exp(logs: Sequence[float]) -> float:
    top = max(logs)
    return top if top == -math.inf else top + math.log(sum(math.exp(value - top) for value in logs))


def log_dirichlet_multinomial(counts: Sequence[int], options: int, concentration: float) -> float:
    """Log chance that wrong answers fall into groups of these sizes, whichever of the `options` they are."""
    if len(counts) > options:
        return -math.inf
    each = concentration / options
    chosen = math.lgamma(options + 1) - math.lgamma(options - len(counts) + 1)
    drawn = sum(math.lgamma(each + count) - math.lgamma(each) for count in counts)
    return chosen + drawn + math.lgamma(concentration) - math.lgamma(concentration + sum(counts))
