from concurrent.futures import ThreadPoolExecutor

import pytest

from dsrl.grade import KINDS, Choice, Grader, Number, Text

GRADERS = {"number": Number(), "choice": Choice(), "text": Text()}
RIGHT = {"number": ("#### 4", "4"), "choice": ("<answer>B</answer>", "B"), "text": ("<answer>sea</answer>", "sea")}


def test_every_answer_kind_is_tested_here() -> None:
    assert GRADERS.keys() == KINDS.keys()
    for kind, target in KINDS.items():
        cls = type(GRADERS[kind])
        assert target == f"dsrl.grade.{cls.__name__}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_reply_that_obeys_the_instruction_earns_everything(kind: str) -> None:
    grader, (reply, answer) = GRADERS[kind], RIGHT[kind]
    assert grader.grade(reply, answer).correct
    assert grader.correct_anywhere(reply, answer)
    assert grader.gold(reply) == grader.gold(answer) == answer
    assert grader.reward(reply, answer, 0.3) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_instruction_shows_the_very_marks_that_are_read(kind: str) -> None:
    mark = {"number": "####", "choice": "<answer>", "text": "<answer>"}[kind]
    assert mark in GRADERS[kind].instruction
    assert mark in RIGHT[kind][0]


@pytest.mark.parametrize("grader", GRADERS.values(), ids=GRADERS)
def test_repeating_the_instruction_is_no_answer(grader: Grader) -> None:
    """A model that echoes its prompt must not be paid for the example in it."""
    grade = grader.grade(grader.instruction, "letter")
    assert not grade.correct or isinstance(grader, Text)
    assert isinstance(grader, Text) or not grade.format_ok


def test_digests_tell_graders_apart() -> None:
    assert len({grader.digest() for grader in GRADERS.values()}) == len(GRADERS)


def test_graders_do_in_threads_what_they_do_alone() -> None:
    """No signals, no shared state: rewards are computed in the threads of a trainer."""
    replies = [f"#### {i}" for i in range(500)]
    with ThreadPoolExecutor(8) as pool:
        parsed = list(pool.map(GRADERS["number"].parse, replies))
    assert parsed == [str(i) for i in range(500)]
