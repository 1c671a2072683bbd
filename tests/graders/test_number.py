from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsrl.graders import Number

GRADER = Number()

PARSED = [
    ("#### 72", "72"),
    ("48/2 = 24, 48+24 = 72\n#### 72", "72"),
    ("####72", "72"),
    ("#### -5", "-5"),
    ("#### \u22125", "-5"),
    ("#### +5", "5"),
    ("#### 1,234,567", "1234567"),
    ("#### 1,234.50", "1234.5"),
    ("#### .5", "0.5"),
    ("#### 0.50", "0.5"),
    ("#### 007", "7"),
    ("#### -0", "0"),
    ("#### 6/8", "0.75"),
    ("#### 1/3", "1/3"),
    ("#### -7 / 2", "-3.5"),
    ("#### $18", "18"),
    ("#### -$18", "-18"),
    ("#### 18 dollars", "18"),
    ("#### 72.", "72"),
    ("#### **72**", "72"),
    ("#### \\boxed{72}", "72"),
    ("#### $72$", "72"),
    ("#### \\$72", "72"),
    ("#### 50%", "50"),
    ("#### 7\n#### 8", "8"),
    ("#### 8\nThat is all.", "8"),
    ("#### 8\nThere were 3 of them.", "8"),
]
"""What stands after the last marker, on its line."""

UNREADABLE = [
    "",
    "72",
    "The answer is 72.",
    "####",
    "#### ",
    "#### seventy-two",
    "#### 7 or 8",
    "#### 7, 8",
    "#### 1,23",
    "#### 1,234,56",
    "#### 1.2.3",
    "#### 1/0",
    "#### x2",
    "#### v1.5",
    "###  72",
    "#### 8\n####",
    "#### " + "9" * 100,
]
"""Near misses: no marker, no number, or more than one."""


@pytest.mark.parametrize(("reply", "answer"), PARSED)
def test_the_number_after_the_marker_is_read(reply: str, answer: str) -> None:
    assert GRADER.parse(reply) == answer
    assert GRADER.grade(reply, answer).correct
    assert GRADER.correct_anywhere(reply.splitlines()[0], answer) or "####" in reply.partition("\n")[2]


@pytest.mark.parametrize("reply", UNREADABLE)
def test_what_is_no_single_number_after_a_marker_is_no_answer(reply: str) -> None:
    grade = GRADER.grade(reply, "72")
    assert (grade.correct, grade.format_ok, grade.parsed, grade.reason) == (False, False, None, "no answer")


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("72", "72.0", True),
        ("72", "72.001", False),
        ("1/2", "0.5", True),
        ("1/3", "0.333", False),
        ("1,200", "1200", True),
        ("-5", "5", False),
        ("\u22125", "-5", True),
        ("720", "72", False),
        ("7.2", "72", False),
        ("0", "-0", True),
        ("100000000000000000001", "100000000000000000002", False),
        ("abc", "abc", True),
        ("abc", "1", False),
    ],
)
def test_values_are_compared_not_spellings(first: str, second: str, same: bool) -> None:
    assert GRADER.same(first, second) is same
    assert GRADER.same(second, first) is same


@pytest.mark.parametrize(
    ("tolerance", "reply", "correct"),
    [(0.5, "#### 72.5", True), (0.5, "#### 72.51", False), (0.0, "#### 72.0000001", False), (1, "#### 71", True)],
)
def test_the_tolerance_is_an_absolute_difference(tolerance: float, reply: str, correct: bool) -> None:
    assert Number(tolerance=tolerance).grade(reply, "72").correct is correct


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("The answer is 72.", "72"),
        ("3 + 4 = 7", "7"),
        ("It costs $1,200.50 in all", "1200.5"),
        ("first 7\n#### 8", "8"),
        ("no number here", None),
        ("version v2", None),
    ],
)
def test_format_free_reading_takes_the_last_number(reply: str, answer: str | None) -> None:
    assert GRADER.parse_anywhere(reply) == answer


@pytest.mark.parametrize(
    ("reply", "share", "reward"),
    [("#### 72", 0.2, 1.0), ("#### 71", 0.2, 0.2), ("72", 0.2, 0.0), ("#### 71", 0.0, 0.0), ("#### 71", 1.0, 1.0)],
)
def test_the_reward_mixes_right_and_readable(reply: str, share: float, reward: float) -> None:
    assert GRADER.reward(reply, "72", share) == pytest.approx(reward)


@given(st.fractions(max_denominator=1000), st.sampled_from(["{}", "${}", "**{}**", "\\boxed{{{}}}", "{} apples"]))
def test_a_canonical_answer_is_read_back_as_itself(value: Fraction, wrapping: str) -> None:
    canonical = GRADER.parse(f"#### {value}")
    assert canonical is not None
    assert GRADER.parse(f"so\n#### {wrapping.format(canonical)}") == canonical
    assert GRADER.same(canonical, str(value))


@given(st.decimals(-(10**9), 10**9, places=4))
def test_decimals_with_and_without_separators_are_the_same(value: Decimal) -> None:
    assert GRADER.parse(f"#### {value:,}") == GRADER.parse(f"#### {value}")


@given(st.text(alphabet="#0123456789.,-/$ \n\\{}boxed%\u2212eE", max_size=60))
def test_no_reply_whatever_breaks_the_grader(reply: str) -> None:
    grade = GRADER.grade(reply, "72")
    assert grade.format_ok is (grade.parsed is not None)
    if grade.parsed is not None:
        assert GRADER.parse(f"#### {grade.parsed}") == grade.parsed


@pytest.mark.parametrize("piece", ["1,", "1", "$ ", "#### ", "-", "1/", "*", "\\boxed{", "1.", " ", "\\boxed "])
def test_long_replies_are_graded_in_one_pass(piece: str) -> None:
    """A pattern that backtracks over twenty thousand repeats would never come to its end."""
    GRADER.grade("#### " + piece * 20_000, "72")
    GRADER.correct_anywhere(piece * 20_000, "72")


def test_another_marker_is_another_grader_and_says_so() -> None:
    other = Number(marker="Answer:")
    assert other.parse("Answer: 3") == "3"
    assert other.parse("#### 3") is None
    assert "Answer:" in other.instruction
    assert len({GRADER.digest(), other.digest(), Number(tolerance=1e-6).digest()}) == 3
