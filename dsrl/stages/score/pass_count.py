"""Pass counts to decide by: so many replies that came to an end, right or wrong."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from dsrl.core.component import component
from dsrl.core.parquet import write_table
from dsrl.data.model import Model, Reply
from dsrl.data.sample import Rate
from dsrl.models.rollout.protocols import Asked
from dsrl.stages.score.figures import score_figures
from dsrl.stages.score.measure import TABLE, GradedRollout, graded
from dsrl.stages.score.pass_rate import Score

if TYPE_CHECKING:
    from dsrl.graders import Grader
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState


@component("stages.score.pass_count")
class PassCount(Score):
    """A pass rate over exactly `rollouts` replies. A failed or truncated one is neither right nor wrong: further ones
    take its place, by number, and where there are not enough of these the count stays incomplete."""

    version: ClassVar[int] = 1

    spare: int = Field(default=16, ge=0)
    """Most replies that are drawn to take the place of failed and truncated ones."""

    def __call__(self, state: "PipelineState", context: "Context") -> "PipelineState":
        asked = [Asked(sample.input, sample.answer, sample.images) for sample in state.samples]
        rates = self.count(asked, state, context, names=[sample.id for sample in state.samples])
        samples = tuple(sample.replace(score=rate) for sample, rate in zip(state.samples, rates, strict=True))
        figures = score_figures(samples, self.rollouts, self.low, self.high)
        incomplete = sum(rate.num_valid < self.rollouts for rate in rates)
        return state.add(samples=samples, figures={**figures, "incomplete": incomplete})

    def count(
        self,
        asked: Sequence[Asked],
        state: "PipelineState",
        context: "Context",
        model: Model | None = None,
        *,
        names: Sequence[str] | None = None,
    ) -> list[Rate]:
        """One rate for each question; incomplete where `num_valid` is less than `rollouts`."""
        counted = self._counted(asked, names or [""] * len(asked), state, context, model)
        if names is not None:
            write_table(context.scratch / TABLE, [row for rows, _ in counted for row in rows], GradedRollout)
        return [rate for _, rate in counted]

    def _counted(
        self,
        asked: Sequence[Asked],
        names: Sequence[str],
        state: "PipelineState",
        context: "Context",
        model: Model | None,
    ) -> list[tuple[list[GradedRollout], Rate]]:
        model = model or state.base
        assert model is not None
        rows = self._drawn(asked, names, self.rollouts, state, context, model)
        short = [place for place, own in enumerate(rows) if _decided(own) < self.rollouts]
        if self.spare and short:
            again = [asked[place] for place in short], [names[place] for place in short]
            more = self._drawn(*again, self.rollouts + self.spare, state, context, model)
            for place, own in zip(short, more, strict=True):
                rows[place] = own
        looked = [_completed(own, self.rollouts) for own in rows]
        fingerprint, grader = model.fingerprint(), state.task.answer
        return [(own, self._rate(own, fingerprint, grader)) for own in looked]

    def _drawn(
        self,
        asked: Sequence[Asked],
        names: Sequence[str],
        count: int,
        state: "PipelineState",
        context: "Context",
        model: Model,
    ) -> list[list[GradedRollout]]:
        """`count` graded replies to each question, those after the ones that were looked at before."""
        replies: list[Sequence[Reply]] = [()] * len(asked)
        for drawn in sorted({question.drawn for question in asked}):
            places = [place for place, question in enumerate(asked) if question.drawn == drawn]
            prompts = [state.task.prompt(asked[place].question, asked[place].images) for place in places]
            found = self.rollout.generate(model, prompts, self.sampling, drawn + count, context)
            for place, own in zip(places, found, strict=True):
                replies[place] = own[drawn:]
        grader = state.task.answer
        return [
            graded(name, question.question, question.answer, own, grader, first=question.drawn)
            for name, question, own in zip(names, asked, replies, strict=True)
        ]

    def _rate(self, rows: Sequence[GradedRollout], model: str, grader: "Grader") -> Rate:
        return Rate(
            model=model,
            num_rollouts=len(rows),
            num_valid=_decided(rows),
            num_correct=sum(row.correct for row in rows if row.ended),
            num_error=sum(row.error is not None for row in rows),
            num_truncated=sum(row.error is None and not row.ended for row in rows),
            temperature=self.temperature,
            grader=grader.digest(),
        )


def _decided(rows: Sequence[GradedRollout]) -> int:
    """Replies that are right or wrong."""
    return sum(row.ended for row in rows)


def _completed(rows: list[GradedRollout], wanted: int) -> list[GradedRollout]:
    """The replies up to the one that completes the count; all, where none does."""
    for place in range(wanted, len(rows) + 1):
        if _decided(rows[:place]) == wanted:
            return rows[:place]
    return rows
