"""SynthRL: seeds and their harder variants side by side, and what became of all attempts."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from dsrl.data.images import label_images
from dsrl.data.sample import Rate, Sample
from dsrl.pipeline.state import PipelineState
from dsrl.stages.report import formatting
from dsrl.stages.report.dataset import pass_rate_panel
from dsrl.stages.report.svg import Panel
from dsrl.stages.report.thumbnails import Thumbnails

MAX_PAIRS = 12
GATES = {
    "QualityJudge": "passed the quality judge",
    "PassBand": "pass rate in the band and below the seed's",
    "IntervalBand": "pass rate in the band and significantly below the seed's",
    "SinglePass": "solved at least once",
    "SecondModel": "confirmed by a second model",
}
"""Verifier -> what passing it means."""
COLUMNS = ("sample", "text", "correct", "finish_reason")


@dataclass(frozen=True)
class GateStep:
    """How many got this far; `share` is relative to the widest step."""

    words: str
    number: int
    share: float


@dataclass(frozen=True)
class VariantPair:
    """A seed and its variant."""

    pictures: tuple[tuple[str, str], ...]
    """URL, or else why the image is missing."""
    seed: str
    variant: str
    answer: str
    seed_count: str
    accepting: tuple[str, ...]
    """What the verifiers reported."""
    fresh_count: str


@dataclass(frozen=True)
class ReplyLengths:
    """Lengths of replies that were not truncated. Field names are those of `metrics.json`."""

    replies: int
    words: float
    """Mean number of words."""
    median_words: float
    right_words: float | None
    """Mean over correct replies; None without any."""
    right_lines: float | None
    """Mean non-empty lines of correct replies: what the paper's code counts as reasoning steps."""


@dataclass(frozen=True)
class VariantSection:
    """Seeds and variants, ready to print."""

    lead: str
    panels: tuple[Panel, ...]
    funnels: tuple[tuple[str, tuple[GateStep, ...]], ...]
    attempts: int
    outcomes: tuple[tuple[str, int], ...]
    """What became of the attempts, accepted ones first."""
    lengths: tuple[tuple[str, ReplyLengths], ...]
    pairs: tuple[VariantPair, ...]
    shown: str

    def metrics(self) -> dict[str, Any]:
        """The block `replies` of `metrics.json`."""
        return {name: asdict(found) for name, found in self.lengths}


def variants(state: PipelineState, metrics: Mapping[str, Any], thumbnails: Thumbnails) -> VariantSection | None:
    """None if no question was rewritten with its answer kept."""
    figures = (metrics.get("stages") or {}).get("rewrite") or {}
    if "seed_counts" not in figures:
        return None
    by_id = {sample.id: sample for sample in state.samples}
    pairs = [
        (by_id[sample.parent_id], sample)
        for sample in state.samples
        if sample.origin == "harder" and sample.parent_id in by_id
    ]
    seeds, children = ([pair[side] for pair in pairs] for side in (0, 1))
    rejected = Counter(candidate.reason for candidate in state.rejected if candidate.stage == "rewrite")
    thumbnails.add(image for seed in seeds[:MAX_PAIRS] for image in seed.images)
    groups = (("Seeds with a variant", seeds, ""), ("Their variants, fresh replies", children, "other"))
    return VariantSection(
        lead=_lead(figures),
        panels=tuple(pass_rate_panel(title, group, style) for title, group, style in groups if group),
        funnels=tuple(_funnels(figures)),
        attempts=figures["attempts"],
        outcomes=(("accepted", figures["variants"]), *rejected.most_common()),
        lengths=_lengths(state, seeds, children),
        pairs=tuple(_pair(*pair, thumbnails) for pair in pairs[:MAX_PAIRS]),
        shown=f"the first {MAX_PAIRS} of {formatting.count(len(pairs))}" if len(pairs) > MAX_PAIRS else "",
    )


def _lead(figures: Mapping[str, Any]) -> str:
    seeds, eligible, accepted = figures["seeds"], figures["eligible"], figures["variants"]
    words = (
        f"{formatting.count(eligible)} of {formatting.plural(seeds, 'seed')} were solved often enough to be rewritten; "
        f"{formatting.count(accepted)} of these got a harder variant with the same answer."
    )
    if not accepted:
        return words
    accepting = figures["mean_accepting"]
    biased = f" At acceptance it was {accepting:.1f}, which is biased by selection." if accepting else ""
    return (
        f"{words} The mean number of correct replies fell from {figures['mean_seed']:.1f} to "
        f"{figures['mean_fresh']:.1f}, counted on fresh replies that no decision depended on.{biased}"
    )


def _funnels(figures: Mapping[str, Any]) -> Iterator[tuple[str, tuple[GateStep, ...]]]:
    """Seeds, then attempts if the stage counted its gates."""

    def steps(numbers: Sequence[tuple[str, int]]) -> tuple[GateStep, ...]:
        widest = max(number for _, number in numbers) or 1
        return tuple(GateStep(words, number, number / widest) for words, number in numbers)

    def gate(name: str) -> str:
        kind, _, again = name.partition(" ")
        words = GATES.get(kind, name)
        return f"{words}, second check" if again.isdigit() else words

    accepted = figures["variants"]
    yield "From seeds to variants", steps([
        ("seeds", figures["seeds"]), ("solved often enough", figures["eligible"]), ("with a variant", accepted)
    ])  # fmt: skip
    if gates := figures.get("funnel"):
        passed = [(gate(name), number) for name, number in gates]
        yield "From attempts to variants", steps([("attempts", figures["attempts"]), *passed, ("accepted", accepted)])


def _pair(seed: Sample, variant: Sample, thumbnails: Thumbnails) -> VariantPair:
    def count(rate: Rate | None) -> str:
        return f"{rate.num_correct} of {rate.num_valid}" if rate else formatting.MISSING

    return VariantPair(
        pictures=tuple(thumbnails.urls_of(seed.images)),
        seed=label_images(seed.input, len(seed.images)),
        variant=label_images(variant.input, len(seed.images)),
        answer=variant.answer,
        seed_count=count(seed.score),
        accepting=tuple(f"{verdict.verifier}: {verdict.reason}" for verdict in variant.verdicts if verdict.reason),
        fresh_count=count(variant.score),
    )


def _lengths(
    state: PipelineState, seeds: Sequence[Sample], children: Sequence[Sample]
) -> tuple[tuple[str, ReplyLengths], ...]:
    """Empty unless both sides are known: the comparison is the point."""
    sides = (("seeds", "score/rollouts.parquet", seeds), ("variants", "rewrite/rollouts.parquet", children))
    found = [(name, reply_lengths(state.files.get(path), {one.id for one in group})) for name, path, group in sides]
    known = tuple((name, lengths) for name, lengths in found if lengths is not None)
    return known if len(known) == len(sides) else ()


def reply_lengths(path: Path | None, ids: Collection[str]) -> ReplyLengths | None:
    """Lengths of the replies to these samples, from a table of rollouts, which may have millions of rows. None without
    any."""
    if path is None or not path.is_file():
        return None
    import pyarrow.parquet

    measured: list[tuple[int, int, bool]] = []
    for batch in pyarrow.parquet.ParquetFile(path).iter_batches(columns=list(COLUMNS)):
        for row in batch.to_pylist():
            if row["sample"] in ids and row["text"] is not None and row["finish_reason"] != "length":
                lines = sum(bool(line.strip()) for line in row["text"].splitlines())
                measured.append((len(row["text"].split()), lines, row["correct"]))
    if not measured:
        return None
    correct = [(words, lines) for words, lines, right in measured if right]
    return ReplyLengths(
        replies=len(measured),
        words=fmean(words for words, _, _ in measured),
        median_words=median(words for words, _, _ in measured),
        right_words=fmean(words for words, _ in correct) if correct else None,
        right_lines=fmean(lines for _, lines in correct) if correct else None,
    )
