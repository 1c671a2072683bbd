"""Replies that know nothing of the question: a grader that pays for one of them can be gamed by a constant."""

import ast
import builtins
import json
from collections.abc import Iterator
from dataclasses import dataclass

from dsrl.core.errors import UserError
from dsrl.graders.base import Grader, alternatives
from dsrl.graders.choice import Choice
from dsrl.graders.code import Code
from dsrl.graders.json_fields import Json
from dsrl.graders.label import Label
from dsrl.graders.math import Math
from dsrl.graders.mixed import math_options
from dsrl.graders.sql import Sql

NUMBERS = ("0", "1", "-1", "1e-300", "1e300", "9e999", "-9e999", "1" + "0" * 300, "0." + "0" * 60 + "1")
NO_NUMBERS = ("inf", "-inf", "Infinity", "nan", "NaN", "\u221e", "\\infty", "0/0", "1/0", "\u00b1 1", "0 or 1", "i")
WORDS = (
    "", " ", "None", "null", "True", "False", "yes", "no", "the", "a", "...", "answer", "unknown", "correct",
    "none of the above", "all of the above", "*", "%", ".*", "?", "_", "x", "[]", "{}", "()", '""',
)  # fmt: skip
QUERIES = (
    "SELECT 0", "SELECT 1", "SELECT NULL", "SELECT 9e999", "SELECT -9e999", "SELECT 9e999, 9e999", "SELECT ''",
    "SELECT 1 WHERE 0", "SELECT 'x'", "SELECT 9e999 - 9e999", "SELECT 1e-300", "VALUES (9e999), (9e999)",
)  # fmt: skip
ALWAYS = "lambda *arguments, **named:"
EQUAL = "\n".join(
    [
        "class Equal:",
        "    def __eq__(self, other): return True",
        "    __ne__ = __call__ = __getattr__ = __getitem__ = lambda self, *other, **named: self",
        "    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __eq__",
        "    __hash__ = lambda self: 0",
        "    __sub__ = __rsub__ = __abs__ = __add__ = __iter__ = __call__",
    ]
)
PROGRAMS = (
    "pass", "import os\nos._exit(0)", "import os\nos._exit(78)", "raise SystemExit(0)",
    "import builtins\nbuiltins.exec = print", "import builtins\nbuiltins.compile = lambda *a, **k: 'pass'",
    "import builtins\nbuiltins.AssertionError = type('E', (Exception,), {})",
)  # fmt: skip
FUNCTION_BODIES = ("None", "0", "True", "[]", "''", "Equal()", "float('nan')", "float('inf')")


@dataclass(frozen=True)
class Constant:
    """One constant reply."""

    name: str
    reply: str


def constant_replies(grader: Grader, answer: str) -> Iterator[Constant]:
    """Replies in the output format of a grader bound to its question, for an item with this gold answer.

    Those that say the gold answer itself are left out.
    """
    yield Constant("an empty reply", "")
    yield Constant("the instruction", grader.instruction)
    if grader.question:
        yield Constant("the question", grader.question)
    if isinstance(grader, Code):
        yield from _programs(answer)
        return
    texts = [*QUERIES] if isinstance(grader, Sql) else [*NUMBERS, *NO_NUMBERS, *WORDS]
    if isinstance(grader, (Choice, Label)):
        texts += [" or ".join(grader.answers), ", ".join(grader.answers), "".join(grader.answers)]
    if isinstance(grader, Math):
        letters = list(math_options(grader.question)) or ["A", "B", "C", "D"]
        texts += [", ".join(letters), " or ".join(letters), "x = x", "0 = 0", r"x \in \mathbb{R}", r"\text{}"]
    texts += [grader.instruction] if not isinstance(grader, Sql) else []
    texts += [" ".join(grader.question.split())] if grader.question and not isinstance(grader, Sql) else []
    if isinstance(grader, Json):
        texts = [json.dumps(dict.fromkeys(grader.fields, text)) for text in texts]
    for text in texts:
        try:
            reply = grader.write(text)
        except UserError:  # it can't be written in this kind's format
            continue
        if not _is_answer(text, answer):
            yield Constant(repr(text if len(text) < 40 else f"{text[:37]}..."), reply)


def _is_answer(text: str, answer: str) -> bool:
    """Whether a constant is the gold answer in so many words."""
    right = {one.strip().casefold() for one in alternatives(answer)}
    return bool(right & {text.strip().casefold(), text.strip(' .*%?_[](){}"').casefold()})


def _programs(answer: str) -> Iterator[Constant]:
    """Programs that define every name of the tests to be a constant, and tricks."""
    tests = answer.partition("# tests")[2]
    for program in PROGRAMS:
        yield Constant(repr(program), f"```python\n{program}\n```")
    names = sorted(set(_called(tests)))
    for body in FUNCTION_BODIES:
        lines = [f"{name} = {ALWAYS} {body}" for name in names]
        yield Constant(f"every function returns {body}", "```python\n" + "\n".join([EQUAL, *lines]) + "\n```")


def _called(tests: str) -> Iterator[str]:
    """Names that the tests call and don't get from Python."""
    try:
        nodes = list(ast.walk(ast.parse(tests)))
    except SyntaxError:
        return
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not hasattr(builtins, node.func.id):
            yield node.func.id


def paid_constants(grader: Grader, answer: str) -> list[Constant]:
    """The constants that earn the reward of a right answer on one item."""
    constants = list(constant_replies(grader, answer))
    grades = grader.grade_many([(constant.reply, answer) for constant in constants])
    return [constant for constant, grade in zip(constants, grades, strict=True) if grade.correct]
