"""Pass counts for decisions: a fixed number of replies that ended, correct or not."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from dsrl.core.component import component
from dsrl.core.parquet import write_table
from dsrl.data.model import Model
from dsrl.data.sample import Rate
from dsrl.models.rollout.protocols import Question
from dsrl.stages.score.figures import score_figures
from dsrl.stages.score.measure import TABLE, GradedRollout, grade_replies
from dsrl.stages.score.pass_rate import Score

if TYPE_CHECKING:
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState


@component("stages.score.pass_count")
class PassCount(Score):
    """A pass rate over exactly `rollouts` replies. A failed or truncated reply is neither correct nor wrong: further
    ones replace it, by number, and if there are not enough of these the count stays incomplete."""

    version: ClassVar[int] = 1

    spare: int = Field(default=16, ge=0)
    """Replies generated at most to replace failed and truncated ones."""

    def __call__(self, state: "PipelineState", context: "Context") -> "PipelineState":
        questions = [Question(sample.input, sample.answer, sample.images) for sample in state.samples]
        rates = self.count(questions, state, context, names=[sample.id for sample in state.samples])
        samples = tuple(sample.replace(score=rate) for sample, rate in zip(state.samples, rates, strict=True))
        figures = score_figures(samples, self.rollouts, self.low, self.high)
        incomplete = sum(rate.num_valid < self.rollouts for rate in rates)
        return state.add(samples=samples, figures={**figures, "incomplete": incomplete})

    def count(
        self,
        questions: Sequence[Question],
        state: "PipelineState",
        context: "Context",
        model: Model | None = None,
        *,
        names: Sequence[str] | None = None,
    ) -> list[Rate]:
        """One rate per question; incomplete if `num_valid` is less than `rollouts`. See `PassCounter.count`."""
        model = model or state.base
        assert model is not None
        ids = names or [""] * len(questions)
        rows = self._grade(questions, ids, self.rollouts, state, context, model)
        short = [place for place, own in enumerate(rows) if num_ended(own) < self.rollouts]
        if self.spare and short:
            again = [questions[place] for place in short], [ids[place] for place in short]
            more = self._grade(*again, self.rollouts + self.spare, state, context, model)
            for place, own in zip(short, more, strict=True):
                rows[place] = own
        rows = [cut_at_count(own, self.rollouts) for own in rows]
        if names is not None:
            write_table(context.scratch / TABLE, [row for own in rows for row in own], GradedRollout)
        fingerprint, grader = model.fingerprint(), state.task.answer.digest()
        return [
            Rate(
                model=fingerprint,
                num_rollouts=len(own),
                num_valid=num_ended(own),
                num_correct=sum(row.correct for row in own if row.ended),
                num_error=sum(row.error is not None for row in own),
                num_truncated=sum(row.error is None and not row.ended for row in own),
                temperature=self.temperature,
                grader=grader,
            )
            for own in rows
        ]

    def _grade(
        self,
        questions: Sequence[Question],
        ids: Sequence[str],
        count: int,
        state: "PipelineState",
        context: "Context",
        model: Model,
    ) -> list[list[GradedRollout]]:
        """`count` graded replies per question, after those that earlier decisions have used."""
        rows: list[list[GradedRollout]] = [[]] * len(questions)
        for consumed in sorted({question.num_consumed for question in questions}):
            places = [place for place, question in enumerate(questions) if question.num_consumed == consumed]
            prompts = [state.task.prompt(questions[place].text, questions[place].images) for place in places]
            replies = self.rollout.generate(model, prompts, self.sampling, consumed + count, context)
            for place, own in zip(places, replies, strict=True):
                question, fresh = questions[place], own[consumed:]
                rows[place] = grade_replies(
                    ids[place], question.text, question.answer, fresh, state.task.answer, first=consumed
                )
        return rows


def num_ended(rows: Sequence[GradedRollout]) -> int:
    """Replies that are correct or wrong, because they came and were not truncated."""
    return sum(row.ended for row in rows)


def cut_at_count(rows: list[GradedRollout], count: int) -> list[GradedRollout]:
    """The replies up to the one that completes the count; all, if none does."""
    for length in range(count, len(rows) + 1):
        if num_ended(rows[:length]) == count:
            return rows[:length]
    return rows
