"""The task's own labelled data in the place of a teacher's: the baselines on human data."""

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dsrl.data import Source
from dsrl.errors import UserError
from dsrl.estimate import Range
from dsrl.forecast import Load
from dsrl.gold import drawn
from dsrl.part import part
from dsrl.sample import Rejected, Sample, new_sample
from dsrl.stage import Stage

if TYPE_CHECKING:
    from dsrl.context import Context
    from dsrl.forecast import Expectation, Outlook
    from dsrl.study import Study


@part
class Seeds(Stage):
    """Labelled rows as samples, their gold answers as labels; no teacher is asked."""

    name: ClassVar[str] = "seeds"
    needs: ClassVar[tuple[str, ...]] = ("format",)
    adds: ClassVar[tuple[str, ...]] = ("samples",)

    source: Source | None = None
    """The labelled data."""
    n: int | None = Field(default=None, gt=0)
    """Rows to draw; None: all."""
    seed: int = 0

    def check(self) -> None:
        """There is something to draw from."""
        if self.source is None or not self.source.path:
            raise UserError(
                "seeds.source: this task has no labelled data",
                got="a task without `gold`",
                next_step="give task.gold.path=FILE task.gold.input=... task.gold.output=...",
            )

    def parts(self) -> dict[str, Any]:
        """The data count by their content."""
        parts = super().parts()
        parts["stage"]["source"] = self.source.fingerprint() if self.source else None
        return parts

    def expect(self, outlook: "Outlook") -> "Expectation":
        known = self.source.count() if self.source else None
        found = min(filter(None, (known, self.n)), default=None)
        return outlook.expects(Load(), samples=Range.of(found) if found else outlook.samples)

    def __call__(self, study: "Study", context: "Context") -> "Study":  # noqa: ARG002 - a stage's signature
        assert self.source is not None, "checked before the run"
        rows = list(drawn(self.source, study.task.answer, self.n, self.seed))
        first: dict[str, Sample] = {}
        repeats = []
        for row in rows:
            sample = new_sample(study.task.name, row.input, row.answer, "seed", solution=row.solution)
            if first.setdefault(sample.id, sample) is not sample:
                repeats.append(Rejected(stage=self.name, reason="duplicate", input=row.input, answer=row.answer))
        figures = {"rows": {"in": len(rows), "out": len(first)}}
        return study.add(samples=tuple(first.values()), rejected=tuple(repeats), figures=figures)
