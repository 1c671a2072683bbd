"""Seeds and their harder variants, side by side: how often the model solves them, how long it replies, and what became
of all attempts."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dsrl.data.images import label_images
from dsrl.data.sample import Rate, Sample
from dsrl.pipeline.state import PipelineState
from dsrl.stages.report import formatting
from dsrl.stages.report.difficulty import Panel, panel
from dsrl.stages.report.pictures import Pictures
from dsrl.stages.report.replies import Lengths, lengths

MAX_PAIRS = 12
GATES = {
    "QualityJudge": "good enough for the judge",
    "PassBand": "right often enough, and less often than the seed",
    "IntervalBand": "right often enough, and surely less often than the seed",
    "SinglePass": "right at all",
    "SecondModel": "a second model comes to the answer, too",
}
"""Verifiers in words."""


@dataclass(frozen=True)
class Step:
    """How many came so far."""

    words: str
    number: int
    share: float
    """Of the widest step."""


@dataclass(frozen=True)
class Pair:
    """One seed and its variant."""

    pictures: tuple[tuple[str, str], ...]
    """URL and, where there is none, the reason."""
    seed: str
    variant: str
    answer: str
    seed_count: str
    accepting: tuple[str, ...]
    """What the verifiers said."""
    fresh_count: str


@dataclass(frozen=True)
class Variants:
    """The section of the page."""

    lead: str
    panels: tuple[Panel, ...]
    funnels: tuple[tuple[str, tuple[Step, ...]], ...]
    """Of seeds and of attempts, each with its name."""
    attempts: int
    outcomes: tuple[tuple[str, int], ...]
    """What became of the attempts, the accepted ones first."""
    lengths: tuple[tuple[str, Lengths], ...]
    pairs: tuple[Pair, ...]
    shown: str

    def block(self) -> dict[str, Any]:
        """For `metrics.json`."""
        return {name: asdict(found) for name, found in self.lengths}


def variants(state: PipelineState, metrics: Mapping[str, Any], pictures: Pictures) -> Variants | None:
    """None where no question was rewritten with its answer kept."""
    figures = (metrics.get("stages") or {}).get("rewrite") or {}
    if "seed_counts" not in figures:
        return None
    by_id = {sample.id: sample for sample in state.samples}
    pairs = [(by_id[one.parent_id], one) for one in state.samples if one.origin == "harder" and one.parent_id in by_id]
    rejected = Counter(one.reason for one in state.rejected if one.stage == "rewrite")
    seeds, children = ([pair[side] for pair in pairs] for side in (0, 1))
    groups = (("Seeds that got a variant", seeds, ""), ("Their variants, counted anew", children, "other"))
    pictures.take(image for seed in seeds[:MAX_PAIRS] for image in seed.images)
    return Variants(
        lead=_lead(figures),
        panels=tuple(panel(title, group, style) for title, group, style in groups if group),
        funnels=tuple(_funnels(figures)),
        attempts=figures["attempts"],
        outcomes=(("kept", figures["variants"]), *rejected.most_common()),
        lengths=tuple(_lengths(state, seeds, children)),
        pairs=tuple(_pair(*pair, pictures) for pair in pairs[:MAX_PAIRS]),
        shown=f"the first {MAX_PAIRS} of {formatting.count(len(pairs))}" if len(pairs) > MAX_PAIRS else "",
    )


def _lead(figures: Mapping[str, Any]) -> str:
    seeds, eligible, kept = figures["seeds"], figures["eligible"], figures["variants"]
    told = (
        f"{formatting.count(eligible)} of {formatting.plural(seeds, 'seed')} were solved often enough to be made "
        f"harder, and {formatting.count(kept)} of these got a variant with the same answer."
    )
    if not kept:
        return told
    accepting = figures["mean_accepting"]
    low = f" (when they were accepted: {accepting:.1f}, which selection has bent)" if accepting else ""
    return (
        f"{told} Right replies fell from {figures['mean_seed']:.1f} to {figures['mean_fresh']:.1f} on average, counted "
        f"with fresh replies that no decision has looked at{low}."
    )


def _funnels(figures: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Step, ...]]]:
    """Seeds first; attempts as far as their gates were counted."""
    kept = figures["variants"]
    seeds = (("seeds", figures["seeds"]), ("solved often enough", figures["eligible"]), ("with a variant", kept))
    yield "From seeds to variants", _steps(seeds)
    if gates := figures.get("funnel"):
        passed = ((_gate(name), number) for name, number in gates)
        attempts = (("attempts", figures["attempts"]), *passed, ("kept, and counted anew", kept))
        yield "From attempts to variants", _steps(attempts)


def _gate(name: str) -> str:
    kind, _, again = name.partition(" ")
    words = GATES.get(kind, name)
    return f"{words}, looked at again" if again.isdigit() else words


def _steps(numbers: Sequence[tuple[str, int]]) -> tuple[Step, ...]:
    widest = max(number for _, number in numbers) or 1
    return tuple(Step(words, number, number / widest) for words, number in numbers)


def _lengths(
    state: PipelineState, seeds: Sequence[Sample], children: Sequence[Sample]
) -> Iterator[tuple[str, Lengths]]:
    """Only where both sides are known: one alone says nothing."""
    sides = (("seeds", "score/rollouts.parquet", seeds), ("variants", "rewrite/rollouts.parquet", children))
    found = [(name, lengths(state.files.get(path), {one.id for one in group})) for name, path, group in sides]
    if all(measured for _, measured in found):
        yield from ((name, measured) for name, measured in found if measured)


def _pair(seed: Sample, variant: Sample, pictures: Pictures) -> Pair:
    shown = len(seed.images)
    return Pair(
        pictures=tuple(pictures.drawn(seed.images)),
        seed=label_images(seed.input, shown),
        variant=label_images(variant.input, shown),
        answer=variant.answer,
        seed_count=_count(seed.score),
        accepting=tuple(f"{verdict.verifier}: {verdict.reason}" for verdict in variant.verdicts if verdict.reason),
        fresh_count=_count(variant.score),
    )


def _count(rate: Rate | None) -> str:
    return f"{rate.num_correct} of {rate.num_valid}" if rate else formatting.MISSING
