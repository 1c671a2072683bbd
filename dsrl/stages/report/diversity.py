"""How varied the samples are, how long, and how their answers are spread, beside the test set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dsrl.stages.report import formatting, svg
from dsrl.stages.report.difficulty import Panel

NAMES = {"samples": "All samples", "selected": "Selected", "test": "Test set"}
STYLES = {"samples": "bar soft", "selected": "bar", "test": "bar other"}


@dataclass(frozen=True)
class Row:
    """One set."""

    name: str
    texts: int
    words: str
    """Median, and what one in twenty is below or above."""
    distinct: tuple[str, ...]
    nearest: str
    pairs: str
    to_test: str


@dataclass(frozen=True)
class Variety:
    """The section of the page."""

    lead: str
    rows: tuple[Row, ...]
    answers: tuple[Panel, ...]
    lengths: tuple[Panel, ...]
    drawn: int


def variety(metrics: Mapping[str, Any]) -> Variety | None:
    """None where nothing was measured."""
    figures = metrics.get("diversity") or {}
    sets = {name: figures["sets"][name] for name in NAMES if name in (figures.get("sets") or {})}
    if not sets:
        return None
    return Variety(
        lead=_lead(sets, figures.get("answers") or {}),
        rows=tuple(_row(name, measured) for name, measured in sets.items()),
        answers=_answers(figures.get("answers") or {}),
        lengths=_lengths(sets, figures["edges"]),
        drawn=figures["drawn"],
    )


def _row(name: str, measured: Mapping[str, Any]) -> Row:
    words, alike = measured["words"], measured.get("similarity") or {}
    return Row(
        name=NAMES[name],
        texts=measured["count"],
        words=f"{words['p50']:.0f} ({words['p5']:.0f} to {words['p95']:.0f})",
        distinct=tuple(_share(value) for value in measured["distinct"].values()),
        nearest=_share(alike.get("nearest")),
        pairs=_share(alike.get("pairs")),
        to_test=_share((measured.get("to_test") or {}).get("nearest")),
    )


def _share(value: float | None) -> str:
    return formatting.MISSING if value is None else f"{value:.2f}"


def _lead(sets: Mapping[str, Any], answers: Mapping[str, Mapping[str, float]]) -> str:
    """The one thing that most often is wrong with synthetic choices: one letter is right too often."""
    chosen = answers.get("selected") or answers.get("samples") or {}
    if not chosen:
        return "Inputs of the samples beside those of the test set." if "test" in sets else "Inputs of the samples."
    top = max(chosen, key=lambda answer: chosen[answer])
    whose = "selected samples" if "selected" in answers else "samples"
    beside = f", {formatting.percent(answers['test'].get(top))} in the test set" if "test" in answers else ""
    spread = f"; evenly spread it would be {formatting.percent(1 / len(chosen))}"
    return f"{top} is right in {formatting.percent(chosen[top])} of the {whose}{beside}{spread}."


def _answers(answers: Mapping[str, Mapping[str, float]]) -> tuple[Panel, ...]:
    """One histogram a set, all on one scale."""
    top = max((share for group in answers.values() for share in group.values()), default=1.0)
    return tuple(
        Panel(
            title=NAMES[name],
            note=", ".join(f"{answer} {formatting.percent(share, 0)}" for answer, share in group.items()),
            picture=svg.histogram(
                [
                    svg.Slot((svg.Bar(share, f"{answer}: {formatting.percent(share)}", STYLES[name]),), answer)
                    for answer, share in group.items()
                ],
                label=f"Answers of {NAMES[name].lower()}",
                top=top,
            ),
        )
        for name, group in answers.items()
    )


def _lengths(sets: Mapping[str, Any], edges: Sequence[int]) -> tuple[Panel, ...]:
    """Shares, so that sets of any size can be compared."""
    shares = {name: [number / measured["count"] for number in measured["lengths"]] for name, measured in sets.items()}
    top = max(max(group) for group in shares.values())
    return tuple(
        Panel(
            title=NAMES[name],
            note=f"{formatting.plural(sets[name]['count'], 'text')}, mean {sets[name]['words']['mean']:.0f} words",
            picture=svg.histogram(
                [
                    svg.Slot(
                        (svg.Bar(share, f"{low} words and more: {formatting.percent(share)}", STYLES[name]),),
                        str(low) if place % max(1, len(group) // 5) == 0 else "",
                    )
                    for place, (share, low) in enumerate(zip(group, edges, strict=False))
                ],
                label=f"Lengths of {NAMES[name].lower()}, in words",
                top=top,
            ),
        )
        for name, group in shares.items()
    )
