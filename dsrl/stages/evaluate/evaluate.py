"""Measure one model on the task's test set: several sampled replies and one greedy reply to each item."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from dsrl.core.component import component
from dsrl.core.digest import file_digest, text_digest
from dsrl.core.errors import UserError
from dsrl.data.difficulty_tiers import read_tiers
from dsrl.data.evaluation import Evaluation, Setting
from dsrl.data.model import Model, Sampling
from dsrl.data.source import Item
from dsrl.forecast.estimate import Range
from dsrl.forecast.workload import Workload
from dsrl.models.rollout.protocols import Rollout
from dsrl.pipeline.stage import Stage
from dsrl.stages.evaluate.predictions import PREDICTIONS, Prediction, grade_replies, write_predictions
from dsrl.stages.evaluate.statistics import MIN_DIFFERENT, MIN_UNITS
from dsrl.stages.evaluate.summary import known_units, summarise

if TYPE_CHECKING:
    from dsrl.forecast.workload import ForecastState, StageForecast
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState

PRETRAINING = "pretraining_digests.txt"
"""Optional file in a model's folder: the `text_digest` of every text it was pre-trained on."""


@component("stages.evaluate")
class Evaluate(Stage):
    """pass@1 over sampled replies, and the greedy score. Prompt and grader are those of pass rates and rewards."""

    name = "evaluate"
    excluded_from_key: ClassVar[frozenset[str]] = frozenset(("of",))
    version = 3

    of: Literal["base", "trained"]
    """Which model of the state to measure."""
    rollout: Rollout
    samples_per_item: int = Field(default=8, gt=0)
    temperature: float = Field(default=0.7, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=1024, gt=0)
    seed: int = Field(default=0, ge=0)
    """Seed of the bootstrap; the rollout has its own."""
    resamples: int = Field(default=10_000, gt=0)
    tiers: str | None = None
    """A `ratings.parquet` of `dsrl difficulty`, by which figures are split."""

    def key_fields(self) -> dict[str, Any]:
        """Hashes ratings by their content."""
        return {**super().key_fields(), "tiers": None if self.tiers is None else file_digest(self._ratings())}

    def check(self) -> None:
        if self.tiers is not None and not self._ratings().is_file():
            raise UserError(
                "tiers: no such file of ratings",
                got=self.tiers,
                next_step="dsrl difficulty task=... teacher=... writes one and prints its path",
            )

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.of, "test", "format")

    @property
    def outputs(self) -> tuple[str, ...]:
        return (f"evaluation_{self.of}",)

    def storage_name(self, name: str) -> str:
        return {self.of: "model", f"evaluation_{self.of}": "evaluation"}.get(name, name)

    def forecast(self, before: "ForecastState") -> "StageForecast":
        source = before.state.task.test
        if source is None or (self.of == "trained" and not before.trains):
            return before.forecast(Workload())
        items = source.count()
        if items is None:
            return before.forecast()
        sampled = before.rollouts(self.rollout, Range.of(items), self.sampling, self.samples_per_item)
        return before.forecast(sampled + before.rollouts(self.rollout, Range.of(items), self.greedy_sampling, 1))

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_tokens)

    @property
    def greedy_sampling(self) -> Sampling:
        return Sampling(temperature=0.0, top_p=1.0, max_tokens=self.max_tokens)

    def summary_metrics(self, name: str, state: "PipelineState") -> dict[str, dict[str, Any]]:
        evaluation: Evaluation | None = getattr(state, f"evaluation_{self.of}")
        if evaluation is None:
            return {}
        table = state.files.get(f"{name}/{PREDICTIONS}")
        return {"evaluate": {self.of: {**evaluation.metrics(), "predictions": table and str(table)}}}

    def __call__(self, state: "PipelineState", context: "Context") -> "PipelineState":
        model, source = getattr(state, self.of), state.task.test
        if source is None or model is None:
            missing = f"task {state.task.name} has no test set" if source is None else f"there is no {self.of} model"
            context.progress.warn(f"evaluate: {missing}; the {self.of} model is not measured")
            return self._add(state, None, {"of": self.of})
        items = source.load(state.task.answer, context.gallery(state.task))
        tiers = read_tiers(self._ratings()).tiers_of(items, str(self.tiers)) if self.tiers is not None else []
        predictions = self._predict(model, items, tiers, state, context)
        setting = self._setting(model, state)
        write_predictions(context.scratch / PREDICTIONS, predictions, setting)
        overlap = count_pretraining_items(items, (model, state.base))
        result = summarise(predictions, setting, resamples=self.resamples, seed=self.seed, overlap=overlap)
        for warning in interval_warnings(result):
            context.progress.warn(f"evaluate: {warning}")
        return self._add(state, result, self._figures(result))

    def _add(self, state: "PipelineState", result: Evaluation | None, figures: dict[str, Any]) -> "PipelineState":
        if self.of == "base":
            return state.add(evaluation_base=result, figures=figures)
        return state.add(evaluation_trained=result, figures=figures)

    def _ratings(self) -> Path:
        return Path(self.tiers or "").expanduser()

    def _predict(
        self, model: Model, items: list[Item], tiers: Sequence[str], state: "PipelineState", context: "Context"
    ) -> list[Prediction]:
        prompts = [state.task.prompt(item.input, item.images) for item in items]
        sampled = self.rollout.generate(model, prompts, self.sampling, self.samples_per_item, context)
        greedy = self.rollout.generate(model, prompts, self.greedy_sampling, 1, context)
        return grade_replies(items, sampled, greedy, state.task.answer, tiers)

    def _setting(self, model: Model, state: "PipelineState") -> Setting:
        assert state.task.test is not None
        return Setting(
            name=model.name,
            model=model.fingerprint(),
            test=state.task.test.fingerprint(),
            grader=state.task.answer.digest(),
            samples_per_item=self.samples_per_item,
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_tokens,
        )

    def _figures(self, result: Evaluation) -> dict[str, Any]:
        """The stage's own figures in `metrics.json`."""
        return {
            "of": self.of,
            "pass_at_1": result.pass_at_1.value,
            "low": result.pass_at_1.low,
            "high": result.pass_at_1.high,
            "greedy": result.greedy.value,
            "format_ok": result.format_ok.value,
            "format_free": result.format_free.value,
            "truncated": result.truncated.value,
            "n": result.num_items,
            "num_units": result.num_units,
            "num_answered": result.num_answered,
            "samples_per_item": result.samples_per_item,
            "temperature": result.temperature,
            "num_errors": result.num_errors,
            "overlap": result.overlap,
            "rows": {"in": result.num_items, "out": result.num_answered},
        }


def interval_warnings(result: Evaluation) -> list[str]:
    """What limits the evidence: missing replies, items that are not independent, and too few of them."""
    warnings = []
    if result.num_errors:
        replies = result.num_items * (result.samples_per_item + 1)
        warnings.append(
            f"{result.num_errors} of {replies} replies never came; "
            f"{result.num_answered} of {result.num_items} items were answered, and every share is over these"
        )
    units = known_units(result.item_rates, result.item_units)
    if result.num_units < result.num_items:
        warnings.append(
            f"{result.num_items} items are only {result.num_units} independent groups (task.test.group, or questions "
            "that occur more than once); intervals are over groups"
        )
    if units.is_sparse:
        why = (
            f"only {len(units)} independent items, fewer than {MIN_UNITS}"
            if len(units) < MIN_UNITS
            else f"fewer than {MIN_DIFFERENT} of {len(units)} items differ from the most common pass rate"
        )
        warnings.append(f"{why}: the intervals are conservative, wider than a bootstrap's")
    return warnings


def count_pretraining_items(items: Sequence[Item], models: Iterable[Model | None]) -> dict[str, int]:
    """Items that occur in the pre-training texts of the first model that lists them; empty if no model does."""
    located = (model.locate() for model in models if model is not None and (model.path or model.prepare))
    for model in located:
        listed = Path(model.path or "") / PRETRAINING
        if listed.is_file():
            texts = set(listed.read_text(encoding="utf-8").split())
            return {"pretraining": sum(text_digest(item.input) in texts for item in items)}
    return {}
