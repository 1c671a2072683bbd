"""A task: what is asked, how an answer looks, a few demos, and the test set it is measured on."""

from typing import Any

from pydantic import Field, field_validator

from dsrl.data import Source, read_rows
from dsrl.errors import UserError
from dsrl.grade import Grader
from dsrl.home import resource
from dsrl.part import Many, Part, part, record


@record
class Demo:
    """A worked example of the task."""

    input: str
    output: str


@part
class Task(Part):
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
    answer: Grader
    """The answer kind: how answers are asked for, read and compared."""
    domain: str | None = None
    """Subject of the task in a word or two; takes part in the search for passages."""
    test: Source | None = None
    """The real test set, touched once per model."""
    gold: Source | None = None
    """Labelled training data, for the baselines with human data only."""

    @field_validator("demos", mode="before")
    @classmethod
    def _read_demos(cls, value: Any) -> Any:
        rows = read_rows(resource(value)) if isinstance(value, str) else value
        return tuple(_demo(row, number) for number, row in enumerate(rows or (), 1))

    @field_validator("test", "gold", mode="after")
    @classmethod
    def _none_without_path(cls, value: Source | None) -> Source | None:
        return value if value is not None and value.path else None

    @property
    def output_instruction(self) -> str:
        """What every model is told about its output; ends with the answer kind's own words."""
        return f"{self.output_format} {self.answer.instruction}" if self.output_format else self.answer.instruction

    def prompt(self, text: str) -> str:
        """The one way in which a task input is put to a model: in votes, pass rates, training and evaluation."""
        return f"{text}\n\n{self.output_instruction}"

    def definition(self) -> dict[str, Any]:
        """The identity of what the teacher is told: everything but the data sets."""
        identity = self.identity()
        return {key: value for key, value in identity.items() if key not in ("test", "gold")}

    def format(self) -> dict[str, Any]:
        """The identity of how an answer is asked for and graded: all that measuring a model depends on."""
        return {"output_instruction": self.output_instruction, "answer": self.answer.identity()}


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
