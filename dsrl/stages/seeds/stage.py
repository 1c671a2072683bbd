"""The labelled questions that SynthRL starts from, as samples (paper, section 4.1)."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dsrl.core.component import component
from dsrl.core.digest import digest, normalised, text_digest
from dsrl.core.errors import StageFailed, UserError
from dsrl.data.fields import cell_text, lookup
from dsrl.data.images import Gallery, UnusableImage, map_in_threads
from dsrl.data.labelled import format_answer
from dsrl.data.sample import Provenance, Rejected, Sample, new_sample
from dsrl.data.source import NO_OPTION, NO_QUESTION, UNREADABLE_ANSWER, WRONG_PLACEHOLDERS, Item, Source
from dsrl.forecast.estimate import Range
from dsrl.forecast.workload import Workload
from dsrl.pipeline.stage import Stage
from dsrl.pipeline.state import PipelineState

if TYPE_CHECKING:
    from dsrl.data.task import Task
    from dsrl.forecast.workload import ForecastState, StageForecast
    from dsrl.pipeline.context import Context

YES_NO = frozenset({"yes", "no", "true", "false"})
OPTIONS_NEEDED = re.compile(
    r"\b(?:of|among) (?:the following|these|those|the above)\b"
    r"|\bthe following (?:is|are|statements?|options?|choices?|answers?)\b",
    re.IGNORECASE,
)
"""Words of a question that can't be answered without its options."""
REASONS = {
    UNREADABLE_ANSWER: "no readable answer",
    NO_OPTION: "no such option",
    NO_QUESTION: "no question",
    WRONG_PLACEHOLDERS: "placeholders",
}


@component("stages.seeds")
class Seeds(Stage):
    """Reads a labelled data set; unusable rows are rejected one by one, each with its reason."""

    name: ClassVar[str] = "seeds"
    outputs = ("samples",)

    source: Source | None
    """The data; by default the task's `gold`."""
    size: int | None = Field(default=None, gt=0)
    """Number of seeds, drawn at random; a smaller draw is part of a larger one. None: all."""
    free_form: bool = False
    """Ask multiple-choice questions without their options, with the correct option's text as the answer."""
    drop_yes_no: bool = False
    """Leave out questions whose answer is yes, no, true or false: half of all guesses are correct."""
    drop_test_items: bool = True
    """Leave out questions of the test set, whose content is then part of the key. If false, `select` still leaves them
    out, but not their variants."""
    seed: int = 0

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("format", "test") if self.drop_test_items else ("format",)

    def adds_images(self, task: "Task") -> bool:
        return bool(task.gold and task.gold.images)

    def check(self) -> None:
        if self.source is None or not self.source.path:
            raise UserError(
                "seeds: there is no labelled data to start from",
                got="a task without `gold`",
                next_step="give task.gold.path=FILE task.gold.input=COLUMN task.gold.output=COLUMN",
            )
        if self.source.local is not None and not self.source.local.exists():
            self.source.rows()  # raises
        self.source.check_images()
        if self.free_form and self.source.options is None:
            raise UserError(
                "seeds.free_form=true turns multiple-choice questions into free ones, and these have no options",
                got="options: null",
                next_step="name the column that holds them (task.gold.options=COLUMN), or leave free_form=false",
            )

    def parts(self) -> dict[str, Any]:
        """The key includes the content of the data."""
        parts = super().parts()
        parts["stage"]["source"] = self.source.fingerprint() if self.source else None
        return parts

    def forecast(self, before: "ForecastState") -> "StageForecast":
        """No requests; local data are read, data on the hub only counted."""
        assert self.source is not None
        if self.source.local is None or self.source.images:
            count = self.source.count() or self.size
            known = Range(0.9, 1.0, 1.0) * min(count, self.size or count) if count else None
            return before.forecast(Workload(), samples=known or before.samples)
        samples = tuple(row for row in self._read(before.state.task) if isinstance(row, Sample))
        chosen = self._draw(samples)
        state = before.state.add(samples=chosen)
        return before.forecast(Workload(), state=state, samples=Range.of(len(chosen)), whole=True)

    def __call__(self, state: PipelineState, context: "Context") -> PipelineState:
        rows = list(self._read(state.task, context.gallery(state.task)))
        good = tuple(row for row in rows if isinstance(row, Sample))
        rejected = tuple(row for row in rows if isinstance(row, Rejected))
        if rejected:
            context.progress.warn(f"seeds: {len(rejected)} of {len(rows)} rows are unusable: {count_reasons(rejected)}")
        if not good:
            raise StageFailed(
                f"seeds: none of the {len(rows)} rows is usable",
                got=f"{count_reasons(rejected)}; such as {(rejected[0].detail or rejected[0].input or '')[:120]!r}",
                next_step="check task.answer.kind, and task.gold.input and task.gold.output; `dsrl task check` helps",
            )
        chosen = self._draw(good)
        if self.size is not None and len(good) < self.size:
            context.progress.warn(f"seeds: {len(good)} rows are usable, fewer than seeds.size={self.size}")
        return state.add(
            samples=chosen,
            rejected=rejected,
            figures={"rows": {"in": len(rows), "out": len(chosen)}, "usable": len(good)},
        )

    def _draw(self, samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
        """`size` samples by a seeded hash, in their own order."""
        if self.size is None or len(samples) <= self.size:
            return samples
        ranked = sorted(samples, key=lambda sample: digest([self.seed, "seeds", sample.id]))
        taken = {sample.id for sample in ranked[: self.size]}
        return tuple(sample for sample in samples if sample.id in taken)

    def _read(self, task: "Task", gallery: Gallery | None = None) -> Iterator[Sample | Rejected]:
        """Every row as a seed or a rejection. Without a gallery, for forecasts, no image is read."""
        test, seen = self._test_marks(task, gallery), set[str]()
        for number, row in enumerate(self._parse_rows(task, gallery)):
            if isinstance(row, Sample):
                mark = row.content_key
                if mark in seen or mark in test:
                    row = reject_row("duplicate" if mark in seen else "a test item", row.input, number)
                seen.add(mark)
            yield row

    def _test_marks(self, task: "Task", gallery: Gallery | None) -> set[str]:
        if task.test is None or not self.drop_test_items:
            return set()
        if gallery is not None:
            return set(task.test.content_keys(gallery))
        return {text_digest(task.test.question(row)) for row in task.test.rows()}

    def _parse_rows(self, task: "Task", gallery: Gallery | None) -> Iterator[Sample | Rejected]:
        assert self.source is not None
        numbered = enumerate(self.source.rows())
        if not self.source.images or gallery is None:
            return (self._parse_row(number, row, task, None) for number, row in numbered)
        return map_in_threads(lambda pair: self._parse_row(*pair, task, gallery), numbered)

    def _parse_row(
        self, number: int, row: Mapping[str, Any], task: "Task", gallery: Gallery | None
    ) -> Sample | Rejected:
        assert self.source is not None
        question = self.source.question_without_options(row) if self.free_form else self.source.question(row)
        gold = cell_text(lookup(row, self.source.output))
        if not gold.strip():
            return reject_row("no answer", question, number)
        if self.free_form and OPTIONS_NEEDED.search(question):
            return reject_row("needs its options", question, number)
        item = (
            self.source.read_free_form_item(row, task.answer)
            if self.free_form
            else self.source.read_item(row, task.answer)
        )
        if not isinstance(item, Item):
            return reject_row(REASONS.get(item, item), question, number, detail=gold[-200:])
        if self.drop_yes_no and normalised(item.answer) in YES_NO:
            return reject_row("yes or no", question, number)
        try:
            images = self.source.store_images(row, gallery, options=not self.free_form) if gallery is not None else ()
        except UnusableImage as fault:
            return reject_row(fault.reason, question, number, detail=str(fault))
        return new_sample(
            task.name,
            item.input,
            item.answer,
            "seed",
            images=images,
            solution=None if self.free_form else format_answer(gold, item, task.answer),
            provenance=Provenance(index=number),
        )


def reject_row(reason: str, question: str, number: int, detail: str = "") -> Rejected:
    where = f"row {number + 1}" + (f": {detail}" if detail else "")
    return Rejected(stage=Seeds.name, reason=reason, detail=where, input=question, provenance=Provenance(index=number))


def count_reasons(rejected: tuple[Rejected, ...]) -> str:
    counts = Counter(row.reason for row in rejected).most_common()
    return ", ".join(f"{count} x {reason}" for reason, count in counts)
