"""A constant earns nothing: no reply that knows nothing of the question is right, for any kind and any shipped task."""

import dataclasses

import pytest

from dsrl.cli.tasks.validate import read
from dsrl.graders import KINDS, Math, Sql
from dsrl.graders.constants import constant_replies, paid_constants
from tests.cli.tasks.test_shipped import SHIPPED, loaded
from tests.graders.kinds import ANSWERS, kind

QUESTIONS = {
    "choice": "x?\nA: 0\nB: 7\nC: 8\nD: 9",
    "span": "I see the sea.",
    "sql": "CREATE TABLE t (x); INSERT INTO t VALUES (2), (3);",
}
MORE_ANSWERS = {
    "number": ["0.5", "-7", "1000000"],
    "math": ["x^2", r"\pi", r"\{1,2\}", "[0,1)", "2", r"1.6 \times 10^{-19}"],
    "mixed": ["5", r"\sqrt{2}"],
    "text": ["Paris", "3.5", "C++"],
    "sql": ["SELECT count(*) FROM t", "SELECT x FROM t", "SELECT avg(x) FROM t"],
    "code": [
        "# tests\nassert add(1, 2) == 3",
        "# tests\nassert is_even(3) is False\nassert is_even(2)",
        "# tests\nassert abs(half(1) - 0.5) < 1e-6",
        "# tests\nassert 2 < root(5) < 3\nassert 3 in primes(5)",
    ],
}
CASES = [
    (name, answer) for name in KINDS for answer in [ANSWERS[name], *MORE_ANSWERS.get(name, [])] if answer != "SELECT 1"
]


@pytest.mark.parametrize(("name", "answer"), CASES)
def test_no_constant_is_right(name: str, answer: str) -> None:
    assert paid_constants(kind(name).for_question(QUESTIONS.get(name, "What is it?")), answer) == []


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_has_constants_to_try(name: str) -> None:
    assert len(list(constant_replies(kind(name), ANSWERS[name]))) >= 3


@pytest.mark.parametrize("name", SHIPPED)
def test_no_constant_is_right_in_a_shipped_task(name: str) -> None:
    """A query whose result is the constant itself is left out."""
    task = loaded(name)
    assert task.test is not None
    items = list(read(task.test, task.answer).items.values())
    for item in items[:: max(1, len(items) // (3 if isinstance(task.answer, (Math, Sql)) else 20))]:
        grader = task.answer.for_question(item.input)
        paid = paid_constants(grader, item.answer)
        if isinstance(grader, Sql):
            exact = dataclasses.replace(grader, tolerance=0.0).for_question(item.input)
            paid = [constant for constant in paid if not exact.same(str(exact.parse(constant.reply)), item.answer)]
        assert paid == [], item.input
