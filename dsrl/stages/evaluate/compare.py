"""Base against trained on the same test items: how much better, how sure, and whether the items were known before."""

from typing import TYPE_CHECKING, Any

from pydantic import Field

from dsrl.core.component import component
from dsrl.pipeline.stage import Stage
from dsrl.stages.evaluate.difference import difference, doubts, sentence
from dsrl.stages.evaluate.flips import FLIPPED, flips, write_flips
from dsrl.stages.evaluate.predictions import PREDICTIONS, read
from dsrl.stages.evaluate.uncontaminated import equal_items, given_away, on_clean

if TYPE_CHECKING:
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState


@component("stages.compare")
class Compare(Stage):
    """Pairs the two evaluations item by item, as `dsrl compare` does. Only looks, so it is never stored."""

    name = "compare"
    inputs = ("evaluation_base", "evaluation_trained")
    outputs = ()
    stored = False

    resamples: int = Field(default=10_000, gt=0)
    seed: int = Field(default=0, ge=0)

    def __call__(self, state: "PipelineState", context: "Context") -> "PipelineState":
        base, trained = state.evaluation_base, state.evaluation_trained
        equal = equal_items(state, context)
        overlap = {} if equal is None else {"training": len(equal)}
        if overlap.get("training"):
            context.progress.warn(f"compare: {overlap['training']} test items are among the training samples")
        if base is None or trained is None:
            return state.add(figures={"overlap": overlap})
        for doubt in doubts(base, trained):
            context.progress.warn(f"compare: {doubt}; don't compare these numbers")
        if base.test != trained.test or base.num_items != trained.num_items:
            return state.add(figures={"overlap": overlap})
        known = given_away(state) | (equal or set())
        clean = on_clean(base, trained, known, self.resamples, self.seed)
        looked = bool(state.selected) and state.task.contamination.policy != "keep"
        found = difference(base, trained, resamples=self.resamples, seed=self.seed)
        figures = {**found, "clean": {**clean, "looked": looked}}
        context.progress.say(sentence(base, trained, figures["difference"]))
        self._show_flips(state, context)
        return state.add(figures={**figures, "overlap": overlap})

    def summary_metrics(self, name: str, state: "PipelineState") -> dict[str, dict[str, Any]]:  # noqa: ARG002
        return {"evaluate": {name: state.figures.get(name) for name in ("difference", "clean")}}

    def _show_flips(self, state: "PipelineState", context: "Context") -> None:
        """Into the run folder, where both tables of predictions are at hand."""
        tables = [state.files.get(f"evaluate_{role}/{PREDICTIONS}") for role in ("base", "trained")]
        if all(tables):
            before, after = (read(path)[1] for path in tables if path is not None)
            write_flips(context.run_dir / FLIPPED, flips(before, after))
