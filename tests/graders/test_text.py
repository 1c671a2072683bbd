import pytest

from dsrl.graders import Text

GRADER = Text()


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("<answer>Paris</answer>", "paris"),
        ("<answer>The Eiffel Tower</answer>", "Eiffel tower"),
        ("<answer> an  apple. </answer>", "apple"),
        ("<answer>U.S.A.</answer>", "USA"),
        ("<answer>no</answer> wait <answer>yes</answer>", "Yes"),
    ],
)
def test_case_articles_and_punctuation_do_not_count(reply: str, answer: str) -> None:
    assert GRADER.grade(reply, answer).correct


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("Paris", "no answer"),
        ("<answer></answer>", "no answer"),
        ("<answer> </answer>", "no answer"),
        ("<answer>Paris", "no answer"),
        ("<answer>Paris, France</answer>", "wrong"),
        ("<answer>Parish</answer>", "wrong"),
        ("<answer>Not Paris</answer>", "wrong"),
    ],
)
def test_near_misses_are_wrong_or_no_answer(reply: str, reason: str) -> None:
    grade = GRADER.grade(reply, "Paris")
    assert (grade.correct, grade.reason) == (False, reason)


@pytest.mark.parametrize(("first", "second"), [("<", ">"), ("the", "a")])
def test_answers_of_nothing_but_punctuation_are_not_all_the_same(first: str, second: str) -> None:
    assert not GRADER.same(first, second)
    assert GRADER.same(first, first)


@pytest.mark.parametrize(
    ("reply", "answer"), [("I think\nParis", "Paris"), ("<answer>Rome</answer>\nParis", "Rome"), ("", None)]
)
def test_format_free_reading_takes_the_last_line(reply: str, answer: str | None) -> None:
    assert GRADER.parse_anywhere(reply) == answer
