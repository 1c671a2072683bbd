"""The comparison once more, on the test items that no training sample gives away."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from dsrl.data.evaluation import Evaluation
from dsrl.stages.evaluate.difference import of_rates, paired
from dsrl.stages.evaluate.intervals import bootstrap

if TYPE_CHECKING:
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState


def equal_items(state: "PipelineState", context: "Context") -> set[int] | None:
    """Positions of the test items whose text is that of a selected sample; None where there is no test set or nothing
    selected."""
    source = state.task.test
    if source is None or not state.selected:
        return None
    marks = {sample.content_key for sample in state.chosen(state.selected)}
    items = source.content_keys(context.gallery(state.task))
    return {place for place, mark in enumerate(items) if mark in marks}


def given_away(state: "PipelineState") -> set[int]:
    """Positions of the test items that share text with a selected sample, as far as `decontaminate` has looked."""
    chosen = state.chosen(state.selected)
    return {match.item for sample in chosen for match in sample.matches if match.source == "test"}


def on_clean(
    base: Evaluation, trained: Evaluation, known: Collection[int], resamples: int, seed: int
) -> dict[str, Any]:
    """Both models without the items at these positions; None where no item, or no reply to one, is left."""
    before, after = (_without(model.item_rates, known) for model in (base, trained))
    gains = [new - old for old, new in paired(before, after)]
    return {
        "n": len(before),
        "excluded": base.num_items - len(before),
        "base": _measured(before, _without(base.item_greedy, known), resamples, seed),
        "trained": _measured(after, _without(trained.item_greedy, known), resamples, seed),
        "difference": of_rates(gains, resamples, seed) or None,
    }


def _without(values: Sequence[Any], known: Collection[int]) -> list[Any]:
    return [value for place, value in enumerate(values) if place not in known]


def _measured(
    rates: Sequence[float | None], greedy: Sequence[bool | None], resamples: int, seed: int
) -> dict[str, Any] | None:
    came, best = [rate for rate in rates if rate is not None], [right for right in greedy if right is not None]
    if not came:
        return None
    mean = bootstrap(came, resamples, seed)
    return {
        "pass_at_1": mean.value,
        "low": mean.low,
        "high": mean.high,
        "greedy": sum(best) / len(best) if best else None,
    }
