"""The result: base against trained, how sure it is, and what it does not show."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dsrl.data.evaluation import Estimate, Evaluation
from dsrl.pipeline.state import PipelineState
from dsrl.stages.report import formatting, svg
from dsrl.stages.report.checks import Check, checks

if TYPE_CHECKING:
    from markupsafe import Markup


@dataclass(frozen=True)
class Measure:
    """One line of the table of results, ready to print."""

    name: str
    meaning: str
    base: str
    trained: str = ""
    change: str = ""
    note: str = ""
    base_interval: str = ""
    trained_interval: str = ""


@dataclass(frozen=True)
class Items:
    """What happened to the test items, by their share of right replies."""

    better: int
    same: int
    worse: int

    @property
    def total(self) -> int:
        return self.better + self.same + self.worse


@dataclass(frozen=True)
class Headline:
    """All that the top of the report says about the test set."""

    base: str
    trained: str
    change: str
    change_interval: str
    verdict: str
    method: str
    measures: tuple[Measure, ...]
    subjects: tuple[Measure, ...]
    """pass@1 of each subject; empty where the task has none."""
    tiers: tuple[Measure, ...]
    """pass@1 by how hard items are; empty where no ratings were given."""
    checks: tuple[Check, ...]
    picture: "Markup"
    items: Items | None
    predictions: dict[str, str]
    """Model -> the table of its graded replies."""


def headline(state: PipelineState, metrics: Mapping[str, Any]) -> Headline | None:
    """None where no model was measured."""
    base, trained = state.evaluation_base, state.evaluation_trained
    measured = base or trained
    if measured is None:
        return None
    found = comparison(metrics)
    return Headline(
        base=formatting.percent(base.pass_at_1.value) if base else "",
        trained=formatting.percent(trained.pass_at_1.value) if trained else "",
        change=formatting.points(found["difference"].get("estimate")) if found["difference"] else "",
        change_interval=_interval(found["difference"]),
        verdict=_verdict(base, trained, found["difference"]),
        method=_method([model for model in (base, trained) if model], found["minimum_detectable"]),
        measures=_measures(base, trained, found),
        subjects=_parts(base, trained, "subjects", found["subjects"]),
        tiers=_parts(base, trained, "tiers", found["tiers"]),
        checks=checks(state, measured, found["overlap"], found["clean"]),
        picture=_picture(base, trained),
        items=_items(base, trained),
        predictions={
            role: str(path)
            for role in ("base", "trained")
            if (path := state.files.get(f"evaluate_{role}/predictions.parquet"))
        },
    )


def comparison(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What the stage `compare` found, wherever `metrics.json` has it; empty parts where it did not run."""
    stages = metrics.get("stages") or {}
    sources = (stages.get("compare") or {}, metrics.get("evaluate") or {})
    return {
        name: next((source[name] for source in sources if source.get(name)), {})
        for name in ("difference", "greedy", "flipped", "overlap", "minimum_detectable", "subjects", "tiers", "clean")
    }


def _interval(difference: Mapping[str, Any]) -> str:
    low, high = difference.get("low"), difference.get("high")
    return "" if low is None or high is None else f"{formatting.points(low)} to {formatting.points(high)}"


def _verdict(base: Evaluation | None, trained: Evaluation | None, difference: Mapping[str, Any]) -> str:
    """One sentence about the difference and one about the format's share in it."""
    if base is None or trained is None:
        return "Only one model was measured, so there is nothing to compare."
    gain = trained.pass_at_1.value - base.pass_at_1.value
    free = trained.format_free.value - base.format_free.value
    low, high = difference.get("low"), difference.get("high")
    if low is None or high is None:
        first = f"pass@1 changed by {formatting.points(gain)} points; without an interval this may be chance."
    elif low > 0:
        first = f"Training raised pass@1 by {100 * gain:.1f} points, more than chance can explain."
    elif high < 0:
        first = f"Training lowered pass@1 by {-100 * gain:.1f} points, more than chance can explain."
    else:
        first = f"The change of {formatting.points(gain)} points is within what chance can do on this test set."
    second = f"Counting right answers in any format, the change is {formatting.points(free)} points"
    return f"{first} {second}{_meaning(gain, free)}."


def _meaning(gain: float, free: float) -> str:
    """How much of the change is left when learning the format is taken away."""
    if gain <= 0:
        return ""
    share = free / gain
    if share >= 0.8:
        return ": it is the task that was learned, not only the format"
    return ": part of the gain is the format" if share >= 0.3 else ": most of the gain is the format"


def _method(models: Sequence[Evaluation], detectable: object) -> str:
    measured = models[0]
    items = formatting.plural(measured.num_items, "test item")
    words = (
        f"{items}, each answered {measured.samples_per_item} times at temperature {measured.temperature:g} and once "
        "greedily. pass@1 is the mean share of right replies; "
        "95 % intervals are bootstrapped over items; that of greedy replies is Wilson's."
    )
    if isinstance(detectable, float):
        words += f" A test set of this size can show a difference of about {100 * detectable:.1f} points."
    missing = sum(model.num_errors for model in models)
    if missing:
        words += f" {formatting.plural(missing, 'reply', 'replies')} never came and are left out."
    return words


def _measures(base: Evaluation | None, trained: Evaluation | None, found: Mapping[str, Any]) -> tuple[Measure, ...]:
    rows: tuple[tuple[str, str, Callable[[Evaluation], Estimate], str], ...] = (
        (
            "pass@1",
            "right, sampled",
            lambda model: model.pass_at_1,
            formatting.p_value(found["difference"].get("p_value")),
        ),
        ("Greedy", "right, most likely reply", lambda model: model.greedy, _greedy(found)),
        ("In any format", "right, wherever the answer stands", lambda model: model.format_free, ""),
        ("Format kept", "readable where it was asked for", lambda model: model.format_ok, ""),
        ("Cut off", "at the token limit", lambda model: model.truncated, ""),
    )
    return tuple(
        _measure(name, meaning, value(base) if base else None, value(trained) if trained else None, note)
        for name, meaning, value, note in rows
    )


def _measure(name: str, meaning: str, base: Estimate | None, trained: Estimate | None, note: str) -> Measure:
    return Measure(
        name=name,
        meaning=meaning,
        base=formatting.percent(base.value) if base else "",
        trained=formatting.percent(trained.value) if trained else "",
        change=formatting.points(trained.value - base.value) if base and trained else "",
        note=note,
        base_interval=_range(base),
        trained_interval=_range(trained),
    )


def _range(found: Estimate | None) -> str:
    """`41.5 to 45.9`, in per cent."""
    return f"{100 * found.low:.1f} to {100 * found.high:.1f}" if found else ""


def _parts(
    base: Evaluation | None, trained: Evaluation | None, kind: str, found: Mapping[str, Any]
) -> tuple[Measure, ...]:
    """pass@1 of every subject or tier, with the interval of its change as a note."""
    before, after = ({part.name: part for part in getattr(model, kind)} if model else {} for model in (base, trained))
    return tuple(
        _measure(
            name,
            formatting.plural(both[name].num_items, "item"),
            before[name].pass_at_1 if name in before else None,
            after[name].pass_at_1 if name in after else None,
            f"change {change}" if (change := _interval(found.get(name, {}))) else "",
        )
        for both in [{**before, **after}]
        for name in both
    )


def _greedy(found: Mapping[str, Any]) -> str:
    """McNemar's test and what it is made of."""
    p_value, flipped = formatting.p_value(found["greedy"].get("p_value")), found["flipped"]
    if not p_value or not flipped:
        return p_value
    return f"{flipped['gained']} gained, {flipped['lost']} lost, McNemar {p_value}"


def _picture(base: Evaluation | None, trained: Evaluation | None) -> "Markup":
    rows = [
        svg.Interval(name, model.pass_at_1.value, model.pass_at_1.low, model.pass_at_1.high, style)
        for name, model, style in (("base", base, "before"), ("trained", trained, "after"))
        if model
    ]
    words = "; ".join(
        f"{row.name} {formatting.percent(row.value)}, "
        f"interval {formatting.percent(row.low)} to {formatting.percent(row.high)}"
        for row in rows
    )
    return svg.intervals(rows, label=f"pass@1: {words}")


def _items(base: Evaluation | None, trained: Evaluation | None) -> Items | None:
    if not base or not trained or len(base.item_rates) != len(trained.item_rates):
        return None
    pairs = zip(base.item_rates, trained.item_rates, strict=True)
    changes = [after - before for before, after in pairs if before is not None and after is not None]
    return Items(
        better=sum(change > 0 for change in changes),
        same=sum(change == 0 for change in changes),
        worse=sum(change < 0 for change in changes),
    )
