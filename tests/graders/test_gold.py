"""Gold cells are read strictly: a text with two candidates, or one that is not understood, is no gold answer."""

import json

import pytest

from dsrl.graders import Grader
from tests.graders.kinds import kind


@pytest.mark.parametrize(
    "cell",
    [
        "3:2", "3:30 p.m.", "11:55 p.m. on 24 December 2014.", "Vendor 2", "2 or 3", "between 5 and 7",
        "6 feet 2 inches", "5-7", "9, 8", "No. 5", "less than 5", "5 or more", "(5)", "1.5 M", "5!", "2\u03c0", "x5",
        "nan", "inf", "1e400", "5/0", "", None, {"value": 5}, ["5", "many"], [],
    ],
)  # fmt: skip
def test_a_number_is_never_guessed(cell: object) -> None:
    assert kind("number").gold_cell(cell) is None


@pytest.mark.parametrize(
    ("cell", "answer"),
    [(5, "5"), (0.5, "0.5"), ("18 dollars", "18"), ("-(1/3)", "-1/3"), ("2\u00bd", "2.5"), ("so 3\n#### 8", "8")],
)
def test_a_single_number_is_read(cell: object, answer: str) -> None:
    assert kind("number").gold_cell(cell) == answer


TWO = {
    "number": ["#### 1\n#### 2", "1 or 2"],
    "choice": ["<answer>A</answer> <answer>B</answer>", "Answer: A and C", "(B) or (C)"],
    "label": ["<answer>yes</answer> <answer>no</answer>", "yes or no"],
    "text": ["<answer>sea</answer> <answer>sky</answer>"],
    "span": ["<answer>sea</answer> <answer>sky</answer>"],
    "list": ["<answer>2; 3</answer> <answer>3; 2</answer>"],
    "set": ["<answer>sea</answer> <answer>sky</answer>"],
    "json": ['<answer>{"name": "a", "age": 1}</answer> <answer>{"name": "b", "age": 1}</answer>'],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in TWO.items() for text in texts])
def test_a_solution_that_states_two_answers_is_no_gold(name: str, text: str) -> None:
    assert kind(name).gold(text) is None


@pytest.mark.parametrize(
    ("grader", "cell", "right", "wrong"),
    [
        (kind("text"), ["The Broncos", "Denver Broncos"], "<answer>broncos</answer>", "<answer>Denver</answer>"),
        (kind("text"), '["politician", "leader"]', "<answer>leader</answer>", "<answer>lead</answer>"),
        (kind("number"), [9, 8], "#### 8", "#### 7"),
        (kind("math"), ["2x", r"\frac{1}{2}"], r"\boxed{0.5}", r"\boxed{2}"),
        (kind("set"), ["a; b", "c"], '<answer>["c", "a; b"]</answer>', "<answer>c</answer>"),
        (kind("list", item={"kind": "number"}), [3, 5], "<answer>3; 5</answer>", "<answer>5</answer>"),
        (
            kind("json"),
            {"name": "Ann", "age": 61},
            '<answer>{"name": "ann", "age": 61.0}</answer>',
            "<answer>{}</answer>",
        ),
        (kind("choice"), ["B"], "<answer>B</answer>", "<answer>A</answer>"),
    ],
)
def test_an_array_means_several_right_answers_or_the_items_of_one(
    grader: Grader, cell: object, right: str, wrong: str
) -> None:
    answer = grader.gold_cell(cell)
    assert answer is not None
    assert grader.grade(right, answer).reason == "right"
    assert not grader.grade(wrong, answer).correct
    assert grader.grade(grader.write(answer), answer).reason == "right"


@pytest.mark.parametrize("name", ["choice", "label", "json", "sql", "code", "regex"])
def test_kinds_with_one_right_answer_refuse_an_array(name: str) -> None:
    assert kind(name).gold_cell(["yes", "no"]) is None


def test_one_alternative_is_the_answer_itself() -> None:
    assert kind("text").gold_cell(["sea", "sea"]) == "sea"
    assert json.loads(str(kind("text").gold_cell(["sea", "sky"]))) == {"any of": ["sea", "sky"]}
