"""A task: what is asked, how an answer looks, a few demos, and the test set it is measured on."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from dsrl.core.component import Component, Many, component, record
from dsrl.core.errors import UserError
from dsrl.core.resources import resource
from dsrl.data.images import Pixels, Prompt, UnlabelledImages
from dsrl.data.images.prompt import illustrated
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
    """What becomes of synthetic samples that share text with a declared test split."""

    policy: Literal["drop", "flag", "keep"] = "drop"
    """Take them out; mark them, and train on them; or don't look."""
    ngrams: Many[int] = (13, 8)
    """Lengths, in words, of the runs whose sharing is looked for, besides equality: of 13 words and more one shared run
    is enough, of shorter ones it takes half of an item's."""
    renamed: float | None = Field(default=0.5, gt=0, le=1)
    """Share of an item's runs of words with names and numbers masked, from which on a sample is the same item under
    other names; None: names and numbers must agree."""
    reworded: float | None = Field(default=0.5, gt=0, le=1)
    """Share of what the less common words of sample and item weigh that both have, in whatever order, from which on a
    sample is the same item in other words; None: words must agree."""
    also: Many[Source] = ()
    """Further sets that samples must not share text with, besides the task's own test set."""

    @field_validator("ngrams")
    @classmethod
    def _long_enough(cls, ngrams: tuple[int, ...]) -> tuple[int, ...]:
        if any(length < 2 for length in ngrams) or len(set(ngrams)) < len(ngrams):
            raise UserError("task.contamination.ngrams: lengths of 2 words or more, each once", got=list(ngrams))
        return ngrams

    @field_validator("also", mode="before")
    @classmethod
    def _read_sources(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise UserError(
                "task.contamination.also: a list of sets",
                got=value,
                allowed="[{path: FILE, input: COLUMN, output: COLUMN}]",
            )
        known = {field.name for field in dataclasses.fields(Source)}
        if unknown := sorted({str(key) for row in value if isinstance(row, dict) for key in row} - known):
            raise UserError(f"task.contamination.also: unknown key {unknown[0]}", allowed=sorted(known))
        return tuple(Source(**row) if isinstance(row, dict) else row for row in value)

    @field_validator("also", mode="after")
    @classmethod
    def _each_somewhere(cls, sources: tuple[Source, ...]) -> tuple[Source, ...]:
        if not all(source.path for source in sources):
            raise UserError("task.contamination.also: a set without a path", next_step="give each its path")
        return sources

    def key_fields(self) -> dict[str, Any]:
        """Further sets by their content."""
        return {**super().key_fields(), "also": [source.fingerprint() for source in self.also]}

    def check(self) -> None:
        """Raises `UserError` where a further set can't be read."""
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
    """Said before the answer kind's own instruction (I_output)."""
    demos: Many[Demo] = ()
    """Worked examples: inline, or the path of a JSONL file with `input` and `output`."""
    num_demos: int | None = Field(default=None, ge=0)
    """Only the first so many of them are known to the run; None: all."""
    answer: Grader
    """The answer kind: how answers are asked for, read and compared."""
    domain: str | None = None
    """Subject of the task in a word or two; takes part in the search for passages."""
    subjects: Many[str] = ()
    """Subjects that share the samples evenly: candidate i is asked for in subject i, from the first again."""
    test: Source | None = None
    """The real test set, touched once per model."""
    gold: Source | None = None
    """Labelled training data, for the baselines with human data only."""
    pictures: UnlabelledImages | None = None
    """Pictures without labels: every new sample is a question about one of them."""
    pixels: Pixels = Field(default_factory=Pixels)
    """How large pictures are shown, where the questions have any."""
    contamination: Contamination = Field(default_factory=Contamination)
    """How samples that share text with the test set are dealt with."""

    @field_validator("demos", mode="before")
    @classmethod
    def _read_demos(cls, value: Any) -> Any:
        rows = read_rows(resource(value)) if isinstance(value, str) else value
        return tuple(_demo(row, number) for number, row in enumerate(rows or (), 1))

    @field_validator("test", "gold", "pictures", mode="after")
    @classmethod
    def _none_without_path(cls, value: Any) -> Any:
        return value if value is not None and value.path else None

    @model_validator(mode="after")
    def _first_demos(self) -> "Task":
        """A smaller number of demos is the beginning of a larger one. Raises `UserError` where there are too few."""
        if self.num_demos is not None and self.num_demos > len(self.demos):
            raise UserError(
                f"task.num_demos: {self.name} has fewer demos than that",
                got=f"task.num_demos={self.num_demos}, {len(self.demos)} demos",
                next_step=f"give task.demos=FILE.jsonl; `dsrl task demos {self.name} count={self.num_demos} "
                "out=FILE.jsonl` draws them from labelled data",
            )
        object.__setattr__(self, "demos", self.demos[: self.num_demos])
        return self

    @property
    def output_instruction(self) -> str:
        """What every model is told about its output; ends with the answer kind's own words."""
        return f"{self.output_format} {self.answer.instruction}" if self.output_format else self.answer.instruction

    def prompt(self, text: str, images: Sequence[Image] = ()) -> Prompt:
        """The one way in which a task input is put to a model: in votes, pass rates, training and evaluation."""
        return illustrated(f"{text}\n\n{self.output_instruction}", images)

    @property
    def illustrated(self) -> bool:
        """Whether its questions come with pictures."""
        labelled = any(source is not None and source.images for source in (self.test, self.gold))
        return labelled or self.pictures is not None

    def turn(self, number: int) -> "Task":
        """The task as it is put to the teacher for candidate `number`: with subjects, one of them."""
        if not self.subjects:
            return self
        subject = self.subjects[number % len(self.subjects)]
        return dataclasses.replace(self, instruction=f"{self.instruction}\nSubject of this sample: {subject}.")

    def definition(self) -> dict[str, Any]:
        """The identity of what the teacher is told: everything but the data sets and what is done about them, and how
        many demos were left out."""
        left_out = {"test", "gold", "contamination", "num_demos"}
        return {key: value for key, value in self.key_fields().items() if key not in left_out}

    def format(self) -> dict[str, Any]:
        """The identity of how an answer is asked for and graded: all that measuring a model depends on."""
        return {
            "output_instruction": self.output_instruction,
            "answer": self.answer.key_fields(),
            "pixels": self.pixels.key_fields(),
        }


def _demo(row: Any, number: int) -> Demo:
    if isinstance(row, Demo):
        return row
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("input", "output")):
        missing = [key for key in ("input", "output") if not (isinstance(row, dict) and isinstance(row.get(key), str))]
        raise UserError(
            f"task.demos: demo {number} has no text under {' and '.join(missing)}",
            got=row,
            allowed='{"input": "...", "output": "..."}',
            next_step="complete the demo",
        )
    return Demo(input=row["input"], output=row["output"])
