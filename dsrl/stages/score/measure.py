"""Grade rollouts with the task's grader and compute pass rates. Failed requests are missing data."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dsrl.core.component import record
from dsrl.core.parquet import write_table
from dsrl.data.model import Reply, Sampling, was_truncated
from dsrl.data.sample import Rate, Sample
from dsrl.graders import Grade, Grader
from dsrl.models.rollout.protocols import Rollout

if TYPE_CHECKING:
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState

TABLE = "rollouts.parquet"


@record
class GradedRollout:
    """One reply of a model to one sample: a row of `rollouts.parquet`."""

    sample: str
    """The sample's id."""
    index: int
    text: str | None
    """None if no reply came."""
    correct: bool
    format_ok: bool
    parsed: str | None
    finish_reason: str | None
    error: str | None

    @property
    def ended(self) -> bool:
        """Whether the reply came and was not truncated."""
        return self.error is None and not was_truncated(self.finish_reason)


def measure(
    state: "PipelineState", rollout: Rollout, sampling: Sampling, count: int, context: "Context"
) -> list[tuple[Sample, Rate]]:
    """Each sample with the base model's pass rate; writes the graded rollouts into a side table."""
    assert state.base is not None
    grader, fingerprint = state.task.answer, state.base.fingerprint()
    prompts = [state.task.prompt(sample.input, sample.images) for sample in state.samples]
    replies = rollout.generate(state.base, prompts, sampling, count, context)
    rolled = [
        grade_replies(sample.id, sample.input, sample.answer, own, grader)
        for sample, own in zip(state.samples, replies, strict=True)
    ]
    write_table(context.scratch / TABLE, [row for rows in rolled for row in rows], GradedRollout)
    rates = [pass_rate(rows, fingerprint, sampling, grader) for rows in rolled]
    return list(zip(state.samples, rates, strict=True))


def grade_replies(
    name: str, question: str, answer: str, replies: Sequence[Reply], grader: Grader, *, first: int = 0
) -> list[GradedRollout]:
    """Grade all replies to a question at once, so that a grader in another process makes one round trip. `first` is the
    number of the first reply."""
    came = [(reply.text, answer) for reply in replies if reply.text is not None and not reply.error]
    grades = iter(grader.for_question(question).grade_many(came))
    rows = []
    for index, reply in enumerate(replies, first):
        grade: Grade | None = None if reply.text is None or reply.error else next(grades)
        rows.append(
            GradedRollout(
                sample=name,
                index=index,
                text=reply.text,
                correct=grade is not None and grade.correct,
                format_ok=grade is not None and grade.format_ok,
                parsed=grade.parsed if grade else None,
                finish_reason=reply.finish_reason,
                error=None if grade else reply.error or "no reply",
            )
        )
    return rows


def pass_rate(
    rows: Sequence[GradedRollout], model: str, sampling: Sampling, grader: Grader, *, censored: bool = False
) -> Rate:
    """The rate over all replies that came; `model` is a fingerprint."""
    num_error = sum(row.error is not None for row in rows)
    return Rate(
        model=model,
        num_rollouts=len(rows),
        num_valid=len(rows) - num_error,
        num_correct=sum(row.correct for row in rows),
        num_error=num_error,
        num_truncated=sum(row.error is None and was_truncated(row.finish_reason) for row in rows),
        temperature=sampling.temperature,
        grader=grader.digest(),
        censored=censored,
    )
