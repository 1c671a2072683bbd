"""The task definition: instruction, answer kind, demos, and the test set it is measured on."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from dsrl.core.component import Component, Many, component, record
from dsrl.core.errors import UserError
from dsrl.core.resources import resource
from dsrl.data.images import Pixels, Prompt, UnlabelledImages
from dsrl.data.images.prompt import make_prompt
from dsrl.data.sample import Image
from dsrl.data.source import Source, read_rows
from dsrl.graders import Grader


@record
class Demo:
    """A worked example of the task."""

    input: str
    output: str


@component("data.contamination")
class Contamination(Component):
    """What to do with synthetic samples that overlap the test set."""

    policy: Literal["drop", "flag", "keep"] = "drop"
    """`drop` removes them, `flag` records the matches and trains on them, `keep` skips the check."""
    ngrams: Many[int] = (13, 8)
    """Sizes n, in words, of the n-grams compared, besides equal texts: from 13 on one shared n-gram is enough, of
    shorter ones it takes half of an item's."""
    renamed: float | None = Field(default=0.5, gt=0, le=1)
    """Minimum share of an item's n-grams, with names and numbers masked, at which a sample counts as the same item
    under other names; None: names and numbers must agree."""
    reworded: float | None = Field(default=0.5, gt=0, le=1)
    """Minimum IDF-weighted word overlap (0 to 1), ignoring order, at which a sample counts as a paraphrase of a test
    item; None: words must agree."""
    also: Many[Source] = ()
    """Further data sets that samples must not overlap, besides the task's own test set."""

    @field_validator("ngrams")
    @classmethod
    def _check_ngrams(cls, ngrams: tuple[int, ...]) -> tuple[int, ...]:
        if any(length < 2 for length in ngrams) or len(set(ngrams)) < len(ngrams):
            raise UserError("task.contamination.ngrams: sizes must be distinct and at least 2", got=list(ngrams))
        return ngrams

    @field_validator("also", mode="before")
    @classmethod
    def _read_sources(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise UserError(
                "task.contamination.also must be a list of data sets",
                got=value,
                allowed="[{path: FILE, input: COLUMN, output: COLUMN}]",
            )
        known = {field.name for field in dataclasses.fields(Source)}
        if unknown := sorted({str(key) for row in value if isinstance(row, dict) for key in row} - known):
            raise UserError(f"task.contamination.also: unknown key {unknown[0]}", allowed=sorted(known))
        return tuple(Source(**row) if isinstance(row, dict) else row for row in value)

    @field_validator("also", mode="after")
    @classmethod
    def _check_paths(cls, sources: tuple[Source, ...]) -> tuple[Source, ...]:
        if not all(source.path for source in sources):
            raise UserError("task.contamination.also: a data set has no path", next_step="set the path of each")
        return sources

    def key_fields(self) -> dict[str, Any]:
        """Further data sets enter the key by their content."""
        return {**super().key_fields(), "also": [source.fingerprint() for source in self.also]}

    def check(self) -> None:
        """Read the further data sets. Raises `UserError` if one can't be read."""
        for source in self.also if self.policy != "keep" else ():
            source.rows()


@component("data.task")
class Task(Component):
    """One task definition; the only thing a user has to write."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    instruction: str = Field(min_length=1)
    """What the task is, in plain words (the paper's I_des)."""
    input_format: str | None = None
    """What an input looks like (I_input)."""
    output_format: str | None = None
    """Precedes the answer kind's own instruction (I_output)."""
    demos: Many[Demo] = ()
    """Worked examples: inline, or the path of a JSONL file with `input` and `output`."""
    num_demos: int | None = Field(default=None, ge=0)
    """Use only the first demos; None: all."""
    answer: Grader
    """The answer kind: how answers are requested, parsed and compared."""
    domain: str | None = None
    """Subject of the task in a word or two; used in the search for passages."""
    subjects: Many[str] = ()
    """Subjects that share the samples evenly: candidate i gets subject i modulo their number."""
    test: Source | None = None
    """The real test set, used once per model."""
    gold: Source | None = None
    """Labelled training data, for the human-data baselines only."""
    pictures: UnlabelledImages | None = None
    """Unlabelled images: every new sample is a question about one of them."""
    pixels: Pixels = Field(default_factory=Pixels)
    """The size to which images are scaled."""
    contamination: Contamination = Field(default_factory=Contamination)
    """What to do with samples that overlap the test set."""

    @field_validator("demos", mode="before")
    @classmethod
    def _read_demos(cls, value: Any) -> Any:
        rows = read_rows(resource(value)) if isinstance(value, str) else value
        return tuple(_read_demo(row, number) for number, row in enumerate(rows or (), 1))

    @field_validator("test", "gold", "pictures", mode="after")
    @classmethod
    def _drop_empty_source(cls, value: Any) -> Any:
        return value if value is not None and value.path else None

    @model_validator(mode="after")
    def _limit_demos(self) -> "Task":
        if self.num_demos is not None and self.num_demos > len(self.demos):
            raise UserError(
                f"task.num_demos: {self.name} has only {len(self.demos)} demos",
                got=f"task.num_demos={self.num_demos}",
                next_step=f"set task.demos=FILE.jsonl; `dsrl task demos {self.name} count={self.num_demos} "
                "out=FILE.jsonl` draws them from labelled data",
            )
        object.__setattr__(self, "demos", self.demos[: self.num_demos])
        return self

    @property
    def output_instruction(self) -> str:
        """The output format and the answer kind's instruction, appended to every prompt."""
        return f"{self.output_format} {self.answer.instruction}" if self.output_format else self.answer.instruction

    def prompt(self, text: str, images: Sequence[Image] = ()) -> Prompt:
        """The prompt for a task input: the same in votes, pass rates, training and evaluation."""
        return make_prompt(f"{text}\n\n{self.output_instruction}", images)

    @property
    def has_images(self) -> bool:
        labelled = any(source is not None and source.images for source in (self.test, self.gold))
        return labelled or self.pictures is not None

    def turn(self, number: int) -> "Task":
        """The task as the teacher sees it for candidate `number`, with that candidate's subject."""
        if not self.subjects:
            return self
        subject = self.subjects[number % len(self.subjects)]
        return dataclasses.replace(self, instruction=f"{self.instruction}\nSubject of this sample: {subject}.")

    def definition(self) -> dict[str, Any]:
        """The part of the key that the teacher's prompts depend on: all but data sets and contamination settings."""
        excluded = {"test", "gold", "contamination", "num_demos"}
        return {key: value for key, value in self.key_fields().items() if key not in excluded}

    def format(self) -> dict[str, Any]:
        """The part of the key that measuring a model depends on: how answers are requested and graded."""
        return {
            "output_instruction": self.output_instruction,
            "answer": self.answer.key_fields(),
            "pixels": self.pixels.key_fields(),
        }


def _read_demo(row: Any, number: int) -> Demo:
    if isinstance(row, Demo):
        return row
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("input", "output")):
        missing = [key for key in ("input", "output") if not (isinstance(row, dict) and isinstance(row.get(key), str))]
        raise UserError(
            f"task.demos: demo {number} has no text in {' and '.join(missing)}",
            got=row,
            allowed='{"input": "...", "output": "..."}',
            next_step="complete the demo",
        )
    return Demo(input=row["input"], output=row["output"])
