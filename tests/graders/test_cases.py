"""Near misses by hand, for every kind: what is right, what is wrong, and what is no answer at all."""

from collections import Counter

import pytest

from dsrl.graders import KINDS, Grader
from tests.graders.kinds import cases

CASES = list(cases())


@pytest.mark.parametrize(("grader", "reply", "answer", "verdict"), CASES)
def test_the_verdict_is_that_of_a_human(grader: Grader, reply: str, answer: str, verdict: str) -> None:
    grade = grader.grade(reply, answer)
    assert grade.reason == verdict
    assert grade.correct is (verdict == "right")
    assert grade.format_ok is (verdict != "no answer")


def test_every_kind_has_near_misses() -> None:
    kinds = Counter(type(grader).__name__ for grader, *_ in CASES)
    misses = Counter(type(grader).__name__ for grader, *_, verdict in CASES if verdict != "right")
    assert len(CASES) >= 300
    assert misses.total() >= 200
    assert set(kinds) == {target.rpartition(".")[2] for target in KINDS.values()}
    assert all(misses[name] >= 3 for name in kinds)
