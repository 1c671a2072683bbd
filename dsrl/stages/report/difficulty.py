"""How hard the samples are for the base model, before and after rewriting."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsrl.data.sample import Sample
from dsrl.stages.report import formatting, svg

if TYPE_CHECKING:
    from markupsafe import Markup

MAX_BINS = 10
GROUPS = {
    "As first written": ("seed", "initial"),
    "Made harder": ("harder",),
    "Made easier": ("easier",),
}
OUTCOMES = ("never", "sometimes", "always")


@dataclass(frozen=True)
class Panel:
    """One of several small histograms."""

    title: str
    note: str
    picture: "Markup"


@dataclass(frozen=True)
class Cell:
    """Rewrites of one kind of parent that ended with one kind of pass rate."""

    number: int
    share: float


@dataclass(frozen=True)
class Transition:
    """What became of the samples that the base model had solved, or not."""

    parent: str
    total: int
    cells: tuple[Cell, ...]
    before: str
    """Mean pass rate of the parents."""
    after: str


@dataclass(frozen=True)
class Difficulty:
    """Pass rates of the base model."""

    lead: str
    panels: tuple[Panel, ...]
    transitions: tuple[Transition, ...]


def difficulty(samples: Sequence[Sample]) -> Difficulty | None:
    """None where nothing was scored."""
    scored = [sample for sample in samples if rate(sample) is not None]
    if not scored:
        return None
    groups = {title: [s for s in scored if s.origin in origins] for title, origins in GROUPS.items()}
    panels = tuple(panel(title, group, "") for title, group in groups.items() if group)
    return Difficulty(lead=_lead(samples, scored), panels=panels, transitions=_transitions(scored))


def rate(sample: Sample) -> float | None:
    """The sample's pass rate, if it is known."""
    return sample.score.value if sample.score else None


def outcome(value: float) -> str:
    """`never`, `sometimes` or `always` solved."""
    return "never" if value == 0 else "always" if value == 1 else "sometimes"


def panel(title: str, samples: Sequence[Sample], style: str, top: float | None = None) -> Panel:
    """The histogram of these samples' pass rates; 0 and 1 stand apart because nothing is learned from them."""
    values = [value for value in map(rate, samples) if value is not None]
    mean = sum(values) / len(values)
    note = f"{formatting.plural(len(values), 'sample')}, mean {mean:.2f}"
    words = f"{title}: pass rates of {note}; {values.count(0)} never solved, {values.count(1)} always"
    return Panel(title, note, svg.histogram(slots(samples, style), label=words, top=top))


def slots(samples: Sequence[Sample], style: str = "") -> list[svg.Slot]:
    """0, then the rates between in equal steps (one for each possible rate where they are few), then 1."""
    values = [value for value in map(rate, samples) if value is not None]
    most = max((sample.score.num_valid for sample in samples if sample.score), default=0)
    bins = most - 1 if 1 < most <= MAX_BINS + 3 else MAX_BINS
    counts = Counter(
        min(round(value * (bins + 1)) - 1 if bins == most - 1 else int(value * bins), bins - 1)
        for value in values
        if 0 < value < 1
    )
    never, always = values.count(0), values.count(1)
    return [
        svg.Slot((svg.Bar(never, f"never solved: {never}", f"bar off {style}"),), "never"),
        *(
            svg.Slot(
                (svg.Bar(counts[number], f"{_range(number, bins, most)}: {counts[number]}", f"bar {style}"),),
                tick="half" if bins % 2 and number == bins // 2 else "",
                gap=0.0 if number else 0.5,
            )
            for number in range(bins)
        ),
        svg.Slot((svg.Bar(always, f"always solved: {always}", f"bar off {style}"),), "always", gap=0.5),
    ]


def _range(number: int, bins: int, most: int) -> str:
    if bins == most - 1:
        return f"{number + 1} of {most} right"
    return f"{number / bins:.1f} to {(number + 1) / bins:.1f}"


def _lead(samples: Sequence[Sample], scored: Sequence[Sample]) -> str:
    rates = [rate(sample) or 0.0 for sample in scored]
    useful = sum(0 < value < 1 for value in rates)
    rollouts = max(sample.score.num_rollouts for sample in scored if sample.score)
    words = (
        f"Share of up to {formatting.plural(rollouts, 'reply', 'replies')} of the base model that are right. "
        f"{formatting.count(useful)} of {formatting.count(len(scored))} samples lie strictly between 0 and 1, where "
        "there is something to learn."
    )
    unknown = len(samples) - len(scored)
    return words + (f" {formatting.plural(unknown, 'sample')} got no reply and have no rate." if unknown else "")


def _transitions(scored: Sequence[Sample]) -> tuple[Transition, ...]:
    by_id = {sample.id: sample for sample in scored}
    pairs = [(by_id[child.parent_id], child) for child in scored if child.parent_id in by_id]
    kinds = {"solved": "Solved, so made harder", "unsolved": "Not solved, so made easier", "unknown": "Not probed"}
    found = ((words, [pair for pair in pairs if _probed(pair[0]) == kind]) for kind, words in kinds.items())
    return tuple(_transition(words, group) for words, group in found if group)


def _probed(sample: Sample) -> str:
    value = sample.probe.value if sample.probe else None
    return "unknown" if value is None else "solved" if value == 1 else "unsolved"


def _transition(words: str, pairs: Sequence[tuple[Sample, Sample]]) -> Transition:
    counts = Counter(outcome(rate(child) or 0.0) for _, child in pairs)
    parents, children = ([rate(pair[side]) or 0.0 for pair in pairs] for side in (0, 1))
    return Transition(
        parent=words,
        total=len(pairs),
        cells=tuple(Cell(counts[name], counts[name] / len(pairs)) for name in OUTCOMES),
        before=f"{sum(parents) / len(pairs):.2f}",
        after=f"{sum(children) / len(pairs):.2f}",
    )
