"""Forecast of rewriting with the answer kept."""

import dataclasses
from typing import TYPE_CHECKING, Any, Protocol

from dsrl import prompts
from dsrl.forecast.estimate import NOTHING, Range
from dsrl.forecast.workload import CHARACTERS_PER_TOKEN, ForecastState, StageForecast, Workload

if TYPE_CHECKING:
    from dsrl.core.component import Many
    from dsrl.llm import Endpoint
    from dsrl.models.rollout.protocols import PassCounter

ELIGIBLE = Range(0.2, 0.5, 0.9)
"""Share of seeds that the target model mostly solves (at most 0.6 in the paper)."""
YIELD = Range(0.4, 0.7, 0.95)
"""Share of these that end with a variant (at least 0.7 in the paper)."""
ATTEMPTS = Range(1.2, 2.5, 6.0)
"""Attempts at a seed until one is accepted."""
JUDGED = 0.95
"""Share of drafts that reach the judge."""


class RewriteSettings(Protocol):
    """The settings that the cost depends on."""

    @property
    def teacher(self) -> "Endpoint": ...
    @property
    def counter(self) -> "PassCounter": ...
    @property
    def attempts(self) -> int: ...
    @property
    def stop(self) -> str: ...
    @property
    def verify(self) -> "Many[object]": ...
    @property
    def min_correct(self) -> int: ...


def forecast_variants(stage: RewriteSettings, before: ForecastState) -> StageForecast:
    """Requests for writing and judging, and the arithmetic of a local target model, from assumptions."""
    scores = [sample.score for sample in before.state.samples if sample.score is not None]
    solved = sum(score.num_correct >= stage.min_correct for score in scores)
    eligible = Range.of(solved) if scores and before.whole else before.samples * ELIGIBLE
    drafts = eligible * (Range.of(stage.attempts) if stage.stop == "best" else ATTEMPTS.within(most=stage.attempts))
    judges = sum(hasattr(verifier, "threshold") for verifier in stage.verify)
    requests = drafts * (1 + JUDGED * judges)
    template = len(prompts.literal_text("task") + prompts.literal_text("harder")) + len(before.state.task.instruction)
    workload = Workload(
        endpoint=stage.teacher,
        requests=requests,
        input_tokens=requests * (before.question_tokens() * 1.5 + Range.of(template / CHARACTERS_PER_TOKEN)),
        output_tokens=drafts * (before.question_tokens() * 1.5) + drafts * (40.0 * judges),
        seconds=before.waiting(stage.teacher, requests),
        basis="assumptions",
    )
    workload = dataclasses.replace(workload, flops=_flops(stage.counter, drafts, before))
    return before.forecast(workload, samples=before.samples + eligible * YIELD, whole=False)


def _flops(counter: Any, drafts: Range, before: ForecastState) -> Range | None:
    """Operations of the target model's replies, if it runs on this machine."""
    if counter.rollout.served_by is not None:
        return NOTHING
    return before.rollouts(counter.rollout, drafts * JUDGED, counter.sampling, counter.rollouts).flops
