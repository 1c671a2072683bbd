"""The result: base model against trained model, how certain the difference is, and what could invalidate it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dsrl.data.evaluation import Estimate, Evaluation
from dsrl.pipeline.state import PipelineState
from dsrl.stages.report import formatting, svg

if TYPE_CHECKING:
    from markupsafe import Markup

COMPARED = (
    *("difference", "greedy", "flipped", "overlap", "minimum_detectable", "subjects", "tiers", "clean"),
    *("shares", "missing_as_wrong"),
)
"""Figures of the stage `compare`."""
CORPORA = {"training": "the training samples", "pretraining": "the base model's pre-training corpus"}


@dataclass(frozen=True)
class Measure:
    """One row of the table of results, ready to print."""

    name: str
    meaning: str
    base: str
    trained: str = ""
    change: str = ""
    note: str = ""
    base_interval: str = ""
    trained_interval: str = ""


@dataclass(frozen=True)
class ItemChanges:
    """Test items by how their share of correct replies changed."""

    better: int
    same: int
    worse: int

    @property
    def total(self) -> int:
        return self.better + self.same + self.worse


@dataclass(frozen=True)
class Check:
    """Something that could invalidate the result."""

    passed: bool | None
    """None: unknown."""
    words: str


@dataclass(frozen=True)
class Headline:
    """The top of the report: results on the test set."""

    base: str
    trained: str
    change: str
    change_interval: str
    verdict: str
    method: str
    measures: tuple[Measure, ...]
    subjects: tuple[Measure, ...]
    """pass@1 by subject; empty if the task has none."""
    tiers: tuple[Measure, ...]
    """pass@1 by difficulty; empty without ratings."""
    checks: tuple[Check, ...]
    picture: "Markup"
    items: ItemChanges | None
    predictions: dict[str, str]
    """Model -> path of its graded replies."""


def headline(state: PipelineState, metrics: Mapping[str, Any]) -> Headline | None:
    """None if no model was evaluated."""
    base, trained = state.evaluation_base, state.evaluation_trained
    measured = base or trained
    if measured is None:
        return None
    found = compare_figures(metrics)
    paths = {role: state.files.get(f"evaluate_{role}/predictions.parquet") for role in ("base", "trained")}
    return Headline(
        base=formatting.percent(base.pass_at_1.value) if base else "",
        trained=formatting.percent(trained.pass_at_1.value) if trained else "",
        change=formatting.points(found["difference"]["estimate"]) if found["difference"] else "",
        change_interval=_interval(found["difference"]),
        verdict=_verdict(base, trained, found),
        method=_method([model for model in (base, trained) if model], found["minimum_detectable"]),
        measures=_measures(base, trained, found),
        subjects=_parts(base, trained, "subjects", found["subjects"]),
        tiers=_parts(base, trained, "tiers", found["tiers"]),
        checks=run_checks(measured, base, trained, found),
        picture=_picture(base, trained),
        items=_item_changes(base, trained),
        predictions={role: str(path) for role, path in paths.items() if path},
    )


def compare_figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of the stage `compare`; each is empty if it did not run."""
    stages = metrics.get("stages") or {}
    sources = (stages.get("compare") or {}, metrics.get("evaluate") or {})
    return {name: next((source[name] for source in sources if source.get(name)), {}) for name in COMPARED}


def _interval(difference: Mapping[str, Any]) -> str:
    low, high = difference.get("low"), difference.get("high")
    return "" if low is None or high is None else f"{formatting.points(low)} to {formatting.points(high)}"


def _verdict(base: Evaluation | None, trained: Evaluation | None, found: Mapping[str, Any]) -> str:
    """A sentence on the difference, and one on how much of it is the answer format."""
    if base is None or trained is None:
        return "Only one model was evaluated, so there is no comparison."
    difference = found["difference"]
    if not difference:
        return "The two evaluations were not compared."
    gain, low, high = difference["estimate"], difference.get("low"), difference.get("high")
    if low is None or high is None:
        first = f"pass@1 changed by {formatting.points(gain)} points; without an interval this may be chance."
    elif low > 0:
        first = f"Training raised pass@1 by {100 * gain:.1f} points; the 95 % interval excludes zero."
    elif high < 0:
        first = f"Training lowered pass@1 by {-100 * gain:.1f} points; the 95 % interval excludes zero."
    else:
        first = f"pass@1 changed by {formatting.points(gain)} points; the 95 % interval includes zero."
    free = found["shares"].get("format_free", {}).get("estimate")
    if free is None:
        return first
    second = f"Counting correct answers in any format, the change is {formatting.points(free)} points"
    return f"{first} {second}{_format_effect(gain, free) if low is not None and low > 0 else ''}."


def _format_effect(gain: float, free: float) -> str:
    """What the gain in any format says about a significant gain in the requested one."""
    if free >= 0.8 * gain:
        return ": the model learned the task, not only the format"
    return ": part of the gain is the format" if free >= 0.3 * gain else ": most of the gain is the format"


def _method(models: Sequence[Evaluation], detectable: object) -> str:
    measured = models[0]
    units = "items"
    words = (
        f"{formatting.plural(measured.num_items, 'test item')}, each with {measured.samples_per_item} sampled replies "
        f"at temperature {measured.temperature:g} and one greedy reply. pass@1 is the mean share of correct sampled "
        "replies."
    )
    if measured.num_units < measured.num_items:
        units = "groups"
        words += (
            f" The items form {formatting.plural(measured.num_units, 'independent group')}: siblings and repeated "
            "questions count once as evidence."
        )
    words += f" Intervals are 95 %, bootstrapped over {units}"
    words += "." if units == "groups" else "; for greedy replies they are Wilson's."
    if isinstance(detectable, float):
        words += f" A test set of this size can detect a difference of about {100 * detectable:.1f} points."
    missing = sum(model.num_errors for model in models)
    if missing:
        words += f" {formatting.plural(missing, 'reply', 'replies')} failed and are excluded."
    return words


def _measures(base: Evaluation | None, trained: Evaluation | None, found: Mapping[str, Any]) -> tuple[Measure, ...]:
    greedy, flipped = found["greedy"], found["flipped"]
    test = "McNemar " if greedy.get("method", "exact McNemar") == "exact McNemar" else ""
    greedy_note = f"{test}{formatting.p_value(greedy.get('p_value'))}"
    if flipped:
        greedy_note = f"{flipped['gained']} gained, {flipped['lost']} lost, {greedy_note}"
    pass_note = formatting.p_value(found["difference"].get("p_value"))
    rows = (
        ("pass@1", "correct, sampled", "pass_at_1", found["difference"].get("estimate"), pass_note),
        ("Greedy", "correct, most likely reply", "greedy", greedy.get("difference"), greedy_note if greedy else ""),
        ("Any format", "correct answer anywhere in the reply", "format_free", None, ""),
        ("Format followed", "answer where the prompt asks for it", "format_ok", None, ""),
        ("Truncated", "reached the token limit", "truncated", None, ""),
    )
    return tuple(
        _measure(
            name,
            meaning,
            getattr(base, field) if base else None,
            getattr(trained, field) if trained else None,
            found["shares"][field].get("estimate") if field in found["shares"] else change,
            note,
        )
        for name, meaning, field, change, note in rows
    )


def _measure(
    name: str, meaning: str, base: Estimate | None, trained: Estimate | None, change: float | None, note: str
) -> Measure:
    def interval(found: Estimate | None) -> str:
        return f"{100 * found.low:.1f} to {100 * found.high:.1f}" if found else ""

    return Measure(
        name=name,
        meaning=meaning,
        base=formatting.percent(base.value) if base else "",
        trained=formatting.percent(trained.value) if trained else "",
        change="" if change is None else formatting.points(change),
        note=note,
        base_interval=interval(base),
        trained_interval=interval(trained),
    )


def _parts(
    base: Evaluation | None, trained: Evaluation | None, kind: str, found: Mapping[str, Any]
) -> tuple[Measure, ...]:
    """pass@1 of every subject or tier, with the interval of its change as a note."""
    before, after = ({part.name: part for part in getattr(model, kind)} if model else {} for model in (base, trained))
    rows = []
    for name, part in {**before, **after}.items():
        difference = found.get(name) or {}
        change = _interval(difference)
        rows.append(
            _measure(
                name,
                formatting.plural(part.num_items, "item"),
                before[name].pass_at_1 if name in before else None,
                after[name].pass_at_1 if name in after else None,
                difference.get("estimate"),
                f"change {change}" if change else "",
            )
        )
    return tuple(rows)


def run_checks(
    measured: Evaluation, base: Evaluation | None, trained: Evaluation | None, found: Mapping[str, Any]
) -> tuple[Check, ...]:
    """Whether test items occur in training data, whether each model answered all items, and whether both models were
    measured alike."""
    known = {**measured.overlap, **(trained or measured).overlap, **found["overlap"]}
    clean = found["clean"]
    checks = [_overlap(known.get(name), corpus, measured.num_items) for name, corpus in CORPORA.items()]
    if clean.get("looked"):  # shared text is a stronger check than equality
        checks[0] = _shared_text(clean)
    for role, model in (("base", base), ("trained", trained)):
        if model and model.num_answered < model.num_items:
            checks.append(Check(False, _unanswered(role, model, found["missing_as_wrong"])))
    if base and trained and (base.grader, base.test) != (trained.grader, trained.test):
        checks.append(Check(False, "The two models were graded or tested differently. Don't compare these numbers."))
    return tuple(checks)


def _overlap(number: Any, corpus: str, items: int) -> Check:
    if not isinstance(number, int):
        return Check(None, f"Unknown whether test items occur in {corpus}.")
    if number == 0:
        return Check(True, f"None of the {formatting.count(items)} test items occurs in {corpus}.")
    return Check(False, f"{formatting.plural(number, 'test item occurs', 'test items occur')} in {corpus}.")


def _shared_text(clean: Mapping[str, Any]) -> Check:
    if not clean["excluded"]:
        return Check(True, f"None of the {formatting.count(clean['n'])} test items shares text with a training sample.")
    gain = (clean.get("difference") or {}).get("estimate")
    items = formatting.plural(clean["excluded"], "test item shares", "test items share")
    return Check(
        False, f"{items} text with training samples; without them the change is {formatting.points(gain)} points."
    )


def _unanswered(role: str, model: Evaluation, as_wrong: Mapping[str, float]) -> str:
    words = (
        f"The {role} model answered {formatting.count(model.num_answered)} of {formatting.count(model.num_items)} test "
        "items. Shares are over these, differences over the items that both models answered"
    )
    wrong = (
        f"; with missing replies counted as wrong, pass@1 is {formatting.percent(as_wrong[role])}" if as_wrong else ""
    )
    return f"{words}{wrong}."


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


def _item_changes(base: Evaluation | None, trained: Evaluation | None) -> ItemChanges | None:
    """None if the two evaluations are not of the same items."""
    if not base or not trained or (base.test, base.num_items) != (trained.test, trained.num_items):
        return None
    pairs = zip(base.item_rates, trained.item_rates, strict=True)
    changes = [after - before for before, after in pairs if before is not None and after is not None]
    return ItemChanges(
        better=sum(change > 0 for change in changes),
        same=sum(change == 0 for change in changes),
        worse=sum(change < 0 for change in changes),
    )
