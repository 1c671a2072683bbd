"""What rewriting with the answer kept is expected to cost."""

import dataclasses
from typing import TYPE_CHECKING, Any, Protocol

from dsrl import prompts
from dsrl.core.estimate import NOTHING, Range
from dsrl.forecast.workload import CHARACTERS_PER_TOKEN, Expectation, Load, Outlook

if TYPE_CHECKING:
    from dsrl.core.component import Many
    from dsrl.llm import Endpoint
    from dsrl.models.rollout.protocols import PassCounter

ELIGIBLE = Range(0.2, 0.5, 0.9)
"""Seeds that the target mostly solves (the paper: at most 0.6)."""
YIELD = Range(0.4, 0.7, 0.95)
"""Of these, those that end with a variant (the paper: at least 0.7)."""
TRIES = Range(1.2, 2.5, 6.0)
"""Attempts at a seed until one is accepted."""
JUDGED = 0.95
"""Of the drafts, those that reach the judge."""


class Costly(Protocol):
    """The settings that decide it."""

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


def foretold(stage: Costly, outlook: Outlook) -> Expectation:
    """Requests for writing and judging, and the arithmetic of a local target, by plain assumptions."""
    scores = [sample.score for sample in outlook.state.samples if sample.score is not None]
    able = sum(score.num_correct >= stage.min_correct for score in scores)
    eligible = Range.of(able) if scores and outlook.whole else outlook.samples * ELIGIBLE
    tries = Range.of(stage.attempts) if stage.stop == "best" else TRIES.within(most=stage.attempts)
    drafts = eligible * tries
    judges = sum(hasattr(verifier, "threshold") for verifier in stage.verify)
    requests = drafts * (1 + JUDGED * judges)
    words = len(prompts.literal_text("task") + prompts.literal_text("harder")) + len(outlook.state.task.instruction)
    read = requests * (outlook.question_tokens() * 1.5 + Range.of(words / CHARACTERS_PER_TOKEN))
    written = drafts * (outlook.question_tokens() * 1.5) + drafts * (40.0 * judges)
    load = Load(
        endpoint=stage.teacher,
        requests=requests,
        input_tokens=read,
        output_tokens=written,
        seconds=outlook.waiting(stage.teacher, requests),
        basis="assumptions",
    )
    load = dataclasses.replace(load, flops=_flops(stage.counter, drafts, outlook))
    return outlook.expects(load, samples=outlook.samples + eligible * YIELD, whole=False)


def _flops(counter: Any, drafts: Range, outlook: Outlook) -> Range | None:
    """Of the target's replies to the drafts, where it is asked on this machine."""
    if counter.rollout.served_by is not None:
        return NOTHING
    return outlook.rollouts(counter.rollout, drafts * JUDGED, counter.sampling, counter.rollouts).flops
