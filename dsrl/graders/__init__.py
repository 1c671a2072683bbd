"""Answer kinds: one grader for votes, pass rates, rewards and evaluation. Pure functions of reply and gold answer."""

from dsrl.graders.base import Grade, Grader
from dsrl.graders.choice import Choice
from dsrl.graders.code import Code
from dsrl.graders.json_fields import Json
from dsrl.graders.label import Label
from dsrl.graders.lists import List, Set
from dsrl.graders.math import Math
from dsrl.graders.mixed import Mixed
from dsrl.graders.number import Number
from dsrl.graders.regex import Regex
from dsrl.graders.sql import Sql
from dsrl.graders.text import Span, Text

KINDS: dict[str, str] = {
    "number": "dsrl.graders.Number",
    "choice": "dsrl.graders.Choice",
    "label": "dsrl.graders.Label",
    "math": "dsrl.graders.Math",
    "mixed": "dsrl.graders.Mixed",
    "text": "dsrl.graders.Text",
    "span": "dsrl.graders.Span",
    "list": "dsrl.graders.List",
    "set": "dsrl.graders.Set",
    "json": "dsrl.graders.Json",
    "sql": "dsrl.graders.Sql",
    "code": "dsrl.graders.Code",
    "regex": "dsrl.graders.Regex",
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
