"""Compare the base model with the trained one on the same test items, with and without items that training gave
away."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from dsrl.core.component import component
from dsrl.data.evaluation import Evaluation
from dsrl.pipeline.stage import Stage
from dsrl.stages.evaluate.difference import (
    FLIPPED,
    compare_evaluations,
    find_flips,
    mean_difference,
    missing_items,
    setting_differences,
    summary_line,
    write_flips,
)
from dsrl.stages.evaluate.predictions import PREDICTIONS, read_predictions
from dsrl.stages.evaluate.statistics import mean_interval
from dsrl.stages.evaluate.summary import any_known, known_units

if TYPE_CHECKING:
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState


@component("stages.compare")
class Compare(Stage):
    """Pairs the run's two evaluations item by item, as `dsrl compare` does. It makes nothing new, so it is never
    stored."""

    name = "compare"
    inputs = ("evaluation_base", "evaluation_trained")
    outputs = ()
    stored = False

    resamples: int = Field(default=10_000, gt=0)
    seed: int = Field(default=0, ge=0)

    def summary_metrics(self, name: str, state: "PipelineState") -> dict[str, dict[str, Any]]:  # noqa: ARG002
        return {"evaluate": {name: state.figures.get(name) for name in ("difference", "clean")}}

    def __call__(self, state: "PipelineState", context: "Context") -> "PipelineState":
        base, trained = state.evaluation_base, state.evaluation_trained
        trained_on = items_in_training(state, context)
        overlap = {} if trained_on is None else {"training": len(trained_on)}
        if overlap.get("training"):
            context.progress.warn(f"compare: {overlap['training']} test items are among the training samples")
        if base is None or trained is None:
            return state.add(figures={"overlap": overlap})
        for warning in setting_differences(base, trained).values():
            context.progress.warn(f"compare: {warning}; don't compare these numbers")
        if base.test != trained.test or base.num_items != trained.num_items:
            return state.add(figures={"overlap": overlap})
        for warning in missing_items(base, trained):
            context.progress.warn(f"compare: {warning}; differences are over the items that both answered")
        figures = compare_evaluations(base, trained, resamples=self.resamples, seed=self.seed)
        excluded = items_sharing_text(state) | (trained_on or set())
        clean = compare_without(base, trained, excluded, self.resamples, self.seed)
        checked = bool(state.selected) and state.task.contamination.policy != "keep"
        context.progress.say(summary_line(base, trained, figures["difference"]))
        paths = [state.files.get(f"evaluate_{role}/{PREDICTIONS}") for role in ("base", "trained")]
        if all(paths):
            before, after = (read_predictions(path)[1] for path in paths if path is not None)
            write_flips(context.run_dir / FLIPPED, find_flips(before, after))
        return state.add(figures={**figures, "clean": {**clean, "looked": checked}, "overlap": overlap})


def items_in_training(state: "PipelineState", context: "Context") -> set[int] | None:
    """Positions of the test items that equal a selected sample; None without a test set or a selection."""
    source = state.task.test
    if source is None or not state.selected:
        return None
    keys = {sample.content_key for sample in state.chosen(state.selected)}
    return {place for place, key in enumerate(source.content_keys(context.gallery(state.task))) if key in keys}


def items_sharing_text(state: "PipelineState") -> set[int]:
    """Positions of the test items that share text with a selected sample, as `decontaminate` found."""
    selected = state.chosen(state.selected)
    return {match.item for sample in selected for match in sample.matches if match.source == "test"}


def compare_without(
    base: Evaluation, trained: Evaluation, excluded: Collection[int], resamples: int, seed: int
) -> dict[str, Any]:
    """Both models without the excluded items. `base`, `trained` and `difference` are None if no reply is left."""
    kept = [place for place in range(base.num_items) if place not in excluded]

    def only(values: Sequence[Any]) -> list[Any]:
        return [values[place] for place in kept]

    units = only(base.item_units or range(base.num_items))
    models: Mapping[str, Evaluation] = {"base": base, "trained": trained}
    measured: dict[str, Any] = dict.fromkeys(models)
    for role, model in models.items():
        rates = only(model.item_rates)
        greedy = [right for right in only(model.item_greedy) if right is not None]
        if any_known(rates):
            mean = mean_interval(known_units(rates, units), resamples, seed)
            share = sum(greedy) / len(greedy) if greedy else None
            measured[role] = {"pass_at_1": mean.value, "low": mean.low, "high": mean.high, "greedy": share}
    difference = mean_difference(only(base.item_rates), only(trained.item_rates), units, resamples, seed)
    return {"n": len(kept), "excluded": base.num_items - len(kept), **measured, "difference": difference or None}
