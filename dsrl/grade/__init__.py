"""One grader for votes, pass rates, rewards and evaluation. Pure functions of the reply; never shown the prompt."""

from dsrl.grade.base import Grade, Grader
from dsrl.grade.choice import Choice
from dsrl.grade.number import Number
from dsrl.grade.text import Text

KINDS: dict[str, str] = {
    "number": "dsrl.grade.Number",
    "choice": "dsrl.grade.Choice",
    "text": "dsrl.grade.Text",
}
"""`answer.kind` in a task's YAML -> the class that grades it."""

__all__ = ["KINDS", "Choice", "Grade", "Grader", "Number", "Text"]
