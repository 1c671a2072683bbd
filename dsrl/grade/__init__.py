"""One grader for votes, pass rates, rewards and evaluation. Pure functions of the reply; never shown the prompt."""

from dsrl.grade.base import Grade, Grader
from dsrl.grade.choice import Choice
from dsrl.grade.code import Code
from dsrl.grade.fields import Json
from dsrl.grade.items import List, Set
from dsrl.grade.label import Label
from dsrl.grade.math import Math
from dsrl.grade.mixed import Mixed
from dsrl.grade.number import Number
from dsrl.grade.regex import Regex
from dsrl.grade.span import Span
from dsrl.grade.sql import Sql
from dsrl.grade.text import Text

KINDS: dict[str, str] = {
    "number": "dsrl.grade.Number",
    "choice": "dsrl.grade.Choice",
    "label": "dsrl.grade.Label",
    "math": "dsrl.grade.Math",
    "mixed": "dsrl.grade.Mixed",
    "text": "dsrl.grade.Text",
    "span": "dsrl.grade.Span",
    "list": "dsrl.grade.List",
    "set": "dsrl.grade.Set",
    "json": "dsrl.grade.Json",
    "sql": "dsrl.grade.Sql",
    "code": "dsrl.grade.Code",
    "regex": "dsrl.grade.Regex",
}
"""`answer.kind` in a task's YAML -> the class that grades it."""

__all__ = [
    "KINDS",
    "Choice",
    "Code",
    "Grade",
    "Grader",
    "Json",
    "Label",
    "List",
    "Math",
    "Mixed",
    "Number",
    "Regex",
    "Set",
    "Span",
    "Sql",
    "Text",
]
