"""What the samples are like: difficulty for the base model, which were selected, and how diverse they are."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dsrl.data.sample import Sample
from dsrl.pipeline.state import PipelineState
from dsrl.stages.report import formatting, svg
from dsrl.stages.report.svg import Panel

MAX_BINS = 10
ORIGINS = {
    "Initial": ("seed", "initial"),
    "Rewritten harder": ("harder",),
    "Rewritten easier": ("easier",),
}
SETS = {
    "samples": ("All samples", "bar soft"),
    "selected": ("Selected", "bar"),
    "test": ("Test set", "bar other"),
}
"""Set of texts in the diversity figures -> its title and CSS class."""


@dataclass(frozen=True)
class Transition:
    """Pass rates after rewriting, for one kind of parent."""

    parent: str
    total: int
    cells: tuple[tuple[int, float], ...]
    """Rewrites never, sometimes and always solved: number and share."""
    before: str
    """Mean pass rate of the parents."""
    after: str


@dataclass(frozen=True)
class DifficultySection:
    """Pass rates of the base model."""

    lead: str
    panels: tuple[Panel, ...]
    transitions: tuple[Transition, ...]


def difficulty(samples: Sequence[Sample]) -> DifficultySection | None:
    """None without pass rates."""
    scored = [sample for sample in samples if pass_rate(sample) is not None]
    if not scored:
        return None
    rates = [pass_rate(sample) or 0.0 for sample in scored]
    rollouts = max(sample.score.num_rollouts for sample in scored if sample.score)
    lead = (
        f"Pass rate of the base model over up to {formatting.plural(rollouts, 'reply', 'replies')}. "
        f"{formatting.count(sum(0 < value < 1 for value in rates))} of {formatting.plural(len(scored), 'sample')} lie "
        "strictly between 0 and 1, where RL gets a learning signal."
    )
    if unscored := len(samples) - len(scored):
        lead += f" {formatting.plural(unscored, 'sample')} got no reply and have no pass rate."
    groups = {title: [sample for sample in scored if sample.origin in origins] for title, origins in ORIGINS.items()}
    panels = tuple(pass_rate_panel(title, group) for title, group in groups.items() if group)
    return DifficultySection(lead, panels, _transitions(scored))


def pass_rate(sample: Sample) -> float | None:
    return sample.score.value if sample.score else None


def solved(value: float) -> str:
    """`never`, `sometimes` or `always`."""
    return "never" if value == 0 else "always" if value == 1 else "sometimes"


def pass_rate_panel(title: str, samples: Sequence[Sample], style: str = "", top: float | None = None) -> Panel:
    """A histogram of pass rates. 0 and 1 stand apart, because such samples give no learning signal."""
    values = [value for value in map(pass_rate, samples) if value is not None]
    note = f"{formatting.plural(len(values), 'sample')}, mean {sum(values) / len(values):.2f}"
    words = f"{title}: pass rates of {note}; {values.count(0)} never solved, {values.count(1)} always"
    return Panel(title, note, svg.histogram(pass_rate_slots(samples, style), label=words, top=top))


def pass_rate_slots(samples: Sequence[Sample], style: str = "") -> list[svg.Slot]:
    """Bars for 0, for the rates between (one for each possible rate if there are few, else equal steps), and for 1."""
    values = [value for value in map(pass_rate, samples) if value is not None]
    most = max((sample.score.num_valid for sample in samples if sample.score), default=0)
    exact = 1 < most <= MAX_BINS + 3
    bins = most - 1 if exact else MAX_BINS
    counts = Counter(
        min(round(value * most) - 1 if exact else int(value * bins), bins - 1) for value in values if 0 < value < 1
    )

    def label(number: int) -> str:
        if exact:
            return f"{number + 1} of {most} correct"
        return f"{number / bins:.1f} to {(number + 1) / bins:.1f}"

    never, always = values.count(0), values.count(1)
    between = [
        svg.Slot(
            (svg.Bar(counts[number], f"{label(number)}: {counts[number]}", f"bar {style}"),),
            tick="half" if bins % 2 and number == bins // 2 else "",
            gap=0.0 if number else 0.5,
        )
        for number in range(bins)
    ]
    return [
        svg.Slot((svg.Bar(never, f"never solved: {never}", f"bar off {style}"),), "never"),
        *between,
        svg.Slot((svg.Bar(always, f"always solved: {always}", f"bar off {style}"),), "always", gap=0.5),
    ]


def _transitions(scored: Sequence[Sample]) -> tuple[Transition, ...]:
    by_id = {sample.id: sample for sample in scored}
    groups: dict[str, list[tuple[Sample, Sample]]] = {
        "Solved, rewritten harder": [],
        "Not solved, rewritten easier": [],
        "Not probed": [],
    }
    solved_parent, unsolved_parent, unprobed = groups.values()
    for child in scored:
        if child.parent_id in by_id:
            parent = by_id[child.parent_id]
            probe = parent.probe.value if parent.probe else None
            group = unprobed if probe is None else solved_parent if probe == 1 else unsolved_parent
            group.append((parent, child))
    return tuple(_transition(words, pairs) for words, pairs in groups.items() if pairs)


def _transition(words: str, pairs: Sequence[tuple[Sample, Sample]]) -> Transition:
    parents, children = ([pass_rate(pair[side]) or 0.0 for pair in pairs] for side in (0, 1))
    counts = Counter(map(solved, children))
    return Transition(
        parent=words,
        total=len(pairs),
        cells=tuple((counts[name], counts[name] / len(pairs)) for name in ("never", "sometimes", "always")),
        before=f"{sum(parents) / len(pairs):.2f}",
        after=f"{sum(children) / len(pairs):.2f}",
    )


@dataclass(frozen=True)
class SelectionSection:
    """Selected samples beside the random control set."""

    lead: str
    shortfall: str
    panels: tuple[Panel, ...]


def selection(state: PipelineState, metrics: Mapping[str, Any]) -> SelectionSection | None:
    """None if nothing was selected."""
    selected = state.chosen(state.selected)
    if not selected:
        return None
    figures = {**((metrics.get("stages") or {}).get("select") or {}), **(metrics.get("select") or {})}
    styles = {"Selected": "", "Random control": "other"}
    sets = zip(styles, (selected, state.chosen(state.control)), strict=True)
    groups = {title: [sample for sample in group if pass_rate(sample) is not None] for title, group in sets}
    groups = {title: group for title, group in groups.items() if group}
    top = max((slot.height for group in groups.values() for slot in pass_rate_slots(group)), default=None)
    lead = f"{formatting.plural(len(selected), 'sample')} to train on"
    if (distinct := len(set(state.selected))) < len(selected):
        lead += f" ({formatting.count(distinct)} distinct)"
    lead += f"{_origins(selected)}."
    if "Random control" in groups:
        lead += " The control set is a random draw of the same size from all scored samples."
    return SelectionSection(
        lead=lead,
        shortfall=_shortfall(figures),
        panels=tuple(pass_rate_panel(title, group, styles[title], top) for title, group in groups.items()),
    )


def _origins(selected: Sequence[Sample]) -> str:
    words = {"initial": "initial", "seed": "seeds", "harder": "rewritten harder", "easier": "rewritten easier"}
    counts = Counter(sample.origin for sample in selected)
    parts = [f"{formatting.count(counts[origin])} {words[origin]}" for origin in words if counts[origin]]  # type: ignore[index]
    return f": {formatting.join_words(parts)}" if len(parts) > 1 else ""


def _shortfall(figures: Mapping[str, Any]) -> str:
    missing, requested = figures.get("shortfall"), figures.get("m")
    if not missing:
        return ""
    of = f" of the {formatting.count(requested)} requested samples" if requested else " samples"
    advice = f" n={figures['suggested_n']} would be enough." if figures.get("suggested_n") else ""
    return f"{formatting.count(missing)}{of} could not be selected.{advice}"


@dataclass(frozen=True)
class TextSet:
    """Diversity figures of one set, ready to print."""

    name: str
    texts: int
    words: str
    """Median, and the 5th to 95th percentile."""
    distinct: tuple[str, ...]
    nearest: str
    pairs: str
    to_test: str


@dataclass(frozen=True)
class DiversitySection:
    """Lengths, answers and similarity of the inputs, beside the test set."""

    lead: str
    sets: tuple[TextSet, ...]
    answers: tuple[Panel, ...]
    lengths: tuple[Panel, ...]
    drawn: int
    """Texts of each set that the figures are computed on."""


def diversity(metrics: Mapping[str, Any]) -> DiversitySection | None:
    """None if diversity was not measured."""
    figures = metrics.get("diversity") or {}
    sets = {name: figures["sets"][name] for name in SETS if name in (figures.get("sets") or {})}
    if not sets:
        return None
    answers = figures.get("answers") or {}
    return DiversitySection(
        lead=_answer_balance(sets, answers),
        sets=tuple(_text_set(name, measured) for name, measured in sets.items()),
        answers=_answer_panels(answers),
        lengths=_length_panels(sets, figures["edges"]),
        drawn=figures["drawn"],
    )


def _text_set(name: str, measured: Mapping[str, Any]) -> TextSet:
    def two_digits(value: float | None) -> str:
        return formatting.MISSING if value is None else f"{value:.2f}"

    words, alike = measured["words"], measured.get("similarity") or {}
    return TextSet(
        name=SETS[name][0],
        texts=measured["count"],
        words=f"{words['p50']:.0f} ({words['p5']:.0f} to {words['p95']:.0f})",
        distinct=tuple(two_digits(value) for value in measured["distinct"].values()),
        nearest=two_digits(alike.get("nearest")),
        pairs=two_digits(alike.get("pairs")),
        to_test=two_digits((measured.get("to_test") or {}).get("nearest")),
    )


def _answer_balance(sets: Mapping[str, Any], answers: Mapping[str, Mapping[str, float]]) -> str:
    """The most frequent answer: in synthetic multiple-choice questions, one letter is often correct too often."""
    chosen = answers.get("selected") or answers.get("samples") or {}
    if not chosen:
        return "Inputs of the samples beside those of the test set." if "test" in sets else "Inputs of the samples."
    top = max(chosen, key=lambda answer: chosen[answer])
    of = "selected samples" if "selected" in answers else "samples"
    test = f" and in {formatting.percent(answers['test'].get(top))} of the test set" if "test" in answers else ""
    return (
        f"{top} is correct in {formatting.percent(chosen[top])} of the {of}{test}; a uniform distribution would give "
        f"{formatting.percent(1 / len(chosen))}."
    )


def _answer_panels(answers: Mapping[str, Mapping[str, float]]) -> tuple[Panel, ...]:
    """One histogram a set, all on one scale."""
    top = max((share for group in answers.values() for share in group.values()), default=1.0)
    panels = []
    for name, group in answers.items():
        title, style = SETS[name]
        bars = [
            svg.Slot((svg.Bar(share, f"{answer}: {formatting.percent(share)}", style),), answer)
            for answer, share in group.items()
        ]
        note = ", ".join(f"{answer} {formatting.percent(share, 0)}" for answer, share in group.items())
        panels.append(Panel(title, note, svg.histogram(bars, label=f"Answers: {title.lower()}", top=top)))
    return tuple(panels)


def _length_panels(sets: Mapping[str, Any], edges: Sequence[int]) -> tuple[Panel, ...]:
    """Histograms of shares, so that sets of different sizes compare."""
    shares = {name: [number / measured["count"] for number in measured["lengths"]] for name, measured in sets.items()}
    top = max(max(group) for group in shares.values())
    panels = []
    for name, group in shares.items():
        title, style = SETS[name]
        bars = [
            svg.Slot(
                (svg.Bar(share, f"{low} words and more: {formatting.percent(share)}", style),),
                str(low) if place % max(1, len(group) // 5) == 0 else "",
            )
            for place, (share, low) in enumerate(zip(group, edges, strict=False))
        ]
        note = f"{formatting.plural(sets[name]['count'], 'text')}, mean {sets[name]['words']['mean']:.0f} words"
        panels.append(Panel(title, note, svg.histogram(bars, label=f"Words: {title.lower()}", top=top)))
    return tuple(panels)
