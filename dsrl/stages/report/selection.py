"""Which samples are trained on, beside a random set of the same size."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dsrl.pipeline.state import PipelineState
from dsrl.stages.report import formatting
from dsrl.stages.report.difficulty import Panel, panel, rate, slots

CONTROL = "The control set, drawn blindly from all that were scored, shows what choosing adds."


@dataclass(frozen=True)
class Selection:
    """Selected against control."""

    lead: str
    shortfall: str
    panels: tuple[Panel, ...]


def selection(state: PipelineState, metrics: Mapping[str, Any]) -> Selection | None:
    """None where nothing was selected."""
    selected, control = state.chosen(state.selected), state.chosen(state.control)
    if not selected:
        return None
    figures = {**((metrics.get("stages") or {}).get("select") or {}), **(metrics.get("select") or {})}
    groups = {
        title: [sample for sample in group if rate(sample) is not None]
        for title, group in (("Selected", selected), ("Random control", control))
    }
    groups = {title: group for title, group in groups.items() if group}
    top = max((slot.height for group in groups.values() for slot in slots(group)), default=None)
    styles = {"Selected": "", "Random control": "other"}
    return Selection(
        lead=f"{formatting.plural(len(selected), 'sample')} to train on{_repeats(state)}{_origins(selected)}. "
        + (CONTROL if "Random control" in groups else ""),
        shortfall=_shortfall(figures),
        panels=tuple(panel(title, group, styles[title], top) for title, group in groups.items()),
    )


def _repeats(state: PipelineState) -> str:
    """Samples may be drawn more than once."""
    distinct = len(set(state.selected))
    return f" ({formatting.count(distinct)} different ones)" if distinct < len(state.selected) else ""


def _origins(selected: tuple[Any, ...]) -> str:
    words = {"initial": "as first written", "seed": "seeds", "harder": "made harder", "easier": "made easier"}
    numbers = {origin: sum(sample.origin == origin for sample in selected) for origin in words}
    parts = [f"{formatting.count(number)} {words[origin]}" for origin, number in numbers.items() if number]
    return f": {formatting.listed(parts)}" if len(parts) > 1 else ""


def _shortfall(figures: Mapping[str, Any]) -> str:
    missing, wanted = figures.get("shortfall"), figures.get("m")
    if not missing:
        return ""
    advice = f" n={figures['suggested_n']} would be enough." if figures.get("suggested_n") else ""
    asked = f" of the {formatting.count(wanted)} asked for" if wanted else ""
    return f"{formatting.count(missing)}{asked} could not be filled.{advice}"
