import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dsrl.graders import Choice

GRADER = Choice()


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("<answer>B</answer>", "B"),
        ("Because of C. <answer>B</answer>", "B"),
        ("<answer> b </answer>", "B"),
        ("<answer>(B)</answer>", "B"),
        ("<answer>B.</answer>", "B"),
        ("<answer>B)</answer>", "B"),
        ("<answer>B: the heart</answer>", "B"),
        ("<answer>B. the heart\nis a muscle</answer>", "B"),
        ("<ANSWER>B</ANSWER>", "B"),
        ("<answer>A</answer> no, <answer>B</answer>", "B"),
        ("<answer>\nB\n</answer>", "B"),
    ],
)
def test_the_letter_in_the_last_tag_is_read(reply: str, letter: str) -> None:
    assert GRADER.parse(reply) == letter
    assert GRADER.grade(reply, "B").reason == "right"
    assert GRADER.grade(reply, "C").reason == "wrong"


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "B",
        "<answer></answer>",
        "<answer>E</answer>",
        "<answer>A or B</answer>",
        "<answer>AB</answer>",
        "<answer>A, B</answer>",
        "<answer>Bad</answer>",
        "<answer>the heart</answer>",
        "<answer>B",
        "answer>B</answer>",
        "<answer>B</answer><answer>none</answer>",
    ],
)
def test_near_misses_are_no_answer(reply: str) -> None:
    grade = GRADER.grade(reply, "B")
    assert (grade.correct, grade.format_ok, grade.reason) == (False, False, "no answer")


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("The answer is B.", "B"),
        ("The correct option is (C)", "C"),
        ("answer: **D**", "D"),
        ("B", "B"),
        ("(b)", "B"),
        ("The answer is a matter of taste", None),
        ("The answer is E", None),
        ("I choose nothing", None),
        ("First I thought the answer is A, but the answer is C.", "C"),
    ],
)
def test_format_free_reading_finds_a_stated_letter(reply: str, letter: str | None) -> None:
    assert GRADER.parse_anywhere(reply) == letter


@pytest.mark.parametrize("options", ["", "A", "abcd", "A,B", "AB1"])
def test_options_are_at_least_two_capital_letters(options: str) -> None:
    with pytest.raises(ValidationError, match="options"):
        Choice(options=options)


def test_the_instruction_names_the_letters_that_count() -> None:
    grader = Choice(options="ABCDE")
    assert "A, B, C, D or E" in grader.instruction
    assert grader.parse("<answer>E</answer>") == "E"
    assert grader.digest() != GRADER.digest()


@given(st.text(alphabet="ABE<answer>/ .():\nis", max_size=60))
def test_no_reply_whatever_breaks_the_grader(reply: str) -> None:
    grade = GRADER.grade(reply, "B")
    assert grade.format_ok is (grade.parsed is not None)
    assert grade.parsed is None or grade.parsed in GRADER.options
    assert GRADER.parse_anywhere(reply) in (None, *GRADER.options)
