import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsrl.core.errors import UserError
from dsrl.data.multiple_choice import arrange_options, find_gold_option, parse_options
from dsrl.data.source import Source
from dsrl.graders import Choice, Mixed

OPTIONS = ["red", "green", "blue", "gold"]
SHOWN = "Which?\nA. red\nB. green\nC. blue\nD. gold"


def source(tmp_path: Path, *rows: dict[str, Any], **fields: Any) -> Source:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps({"q": "Which?", **row}) + "\n" for row in rows))
    return Source(path=str(path), **{"input": "q", "output": "gold", "options": "options", **fields})


@pytest.mark.parametrize(
    ("options", "gold", "fields"),
    [
        (OPTIONS, "C", {}),
        (OPTIONS, "c", {}),
        (OPTIONS, "Blue", {}),
        (OPTIONS, 2, {"index_from": 0}),
        (OPTIONS, "3", {"index_from": 1}),
        (OPTIONS, "two", {"meanings": {"two": "C"}}),
        (dict(zip("ABCD", OPTIONS, strict=True)), "C", {}),
        (dict(zip("1234", OPTIONS, strict=True)), "3", {}),
        (dict(zip(("w", "x", "y", "z"), OPTIONS, strict=True)), "y", {}),
    ],
)
def test_gold_cell_may_be_letter_name_number_or_text(
    options: Any, gold: Any, fields: dict[str, Any], tmp_path: Path
) -> None:
    (item,) = source(tmp_path, {"options": options, "gold": gold}, **fields).load(Choice())
    assert (item.input, item.answer) == (SHOWN, "C")


def test_one_column_per_option(tmp_path: Path) -> None:
    row = {"one": "red", "two": "green", "three": "blue", "four": "gold", "gold": "three"}
    (item,) = source(tmp_path, row, options=("one", "two", "three", "four")).load(Choice())
    assert (item.input, item.answer) == (SHOWN, "C")


@pytest.mark.parametrize(
    ("gold", "fields"), [("E", {}), ("purple", {}), (4, {"index_from": 0}), (0, {"index_from": 1}), (None, {})]
)
def test_gold_answer_outside_the_options_is_reported_by_row(gold: Any, fields: dict[str, Any], tmp_path: Path) -> None:
    right = {"options": OPTIONS, "gold": 1 if fields else "A"}
    with pytest.raises(UserError, match="1 of 2") as caught:
        source(tmp_path, right, {"options": OPTIONS, "gold": gold}, **fields).load(Choice())
    assert "rows [2]" in str(caught.value)


def test_gold_letter_outside_the_options_in_the_question_is_reported(tmp_path: Path) -> None:
    rows = [{"q": "Which?\nA. red\nB. blue", "gold": gold} for gold in "BD"]
    with pytest.raises(UserError, match="1 of 2") as caught:
        source(tmp_path, *rows, options=None).load(Choice())
    assert "rows [2], such as 'D'" in str(caught.value)


def test_more_options_than_letters_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 of 1"):
        source(tmp_path, {"options": OPTIONS, "gold": "D"}).load(Choice(options="ABC"))


@pytest.fixture
def gpqa(tmp_path: Path) -> Path:
    path = tmp_path / "gpqa.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"])
        table.writerows([f"Question {number}?", "right", "no", "nay", "never"] for number in range(400))
    return path


def gpqa_source(path: Path, seed: int | None) -> Source:
    columns = ("Correct Answer", *(f"Incorrect Answer {number}" for number in (1, 2, 3)))
    return Source(path=str(path), input="Question", output="Correct Answer", options=columns, option_seed=seed)


def test_option_seed_is_deterministic_and_spreads_the_right_letter(gpqa: Path) -> None:
    items = gpqa_source(gpqa, 0).load(Choice())
    assert items == gpqa_source(gpqa, 0).load(Choice())
    assert items != gpqa_source(gpqa, 1).load(Choice())
    counts = Counter(item.answer for item in items)
    assert set(counts) == set("ABCD")
    assert min(counts.values()) > 60
    for item in items:
        assert f"{item.answer}. right" in item.input
    assert {item.answer for item in gpqa_source(gpqa, None).load(Choice())} == {"A"}


def test_option_order_does_not_depend_on_the_row_number(gpqa: Path) -> None:
    lines = gpqa.read_text().splitlines(keepends=True)
    before = {item.input: item.answer for item in gpqa_source(gpqa, 0).load(Choice())}
    gpqa.write_text("".join([lines[0], *reversed(lines[1:])]))
    assert {item.input: item.answer for item in gpqa_source(gpqa, 0).load(Choice())} == before


@given(
    st.lists(st.text("abcxyz", min_size=1), min_size=2, max_size=8), st.integers(0, 5), st.integers(0, 99), st.data()
)
def test_shuffled_options_keep_the_right_one(texts: list[str], question: int, seed: int, data: Any) -> None:
    named = parse_options(texts)
    right = data.draw(st.sampled_from(sorted(named)))
    options = arrange_options(named, right, str(question), seed)
    assert sorted(options.texts) == sorted(texts)
    assert options.right is not None
    assert options.texts["ABCDEFGH".index(options.right)] == named[right]


def test_gold_text_of_two_equal_options_is_ambiguous() -> None:
    assert find_gold_option({"a": "one", "b": "one"}, "one", None) is None
    assert find_gold_option({"a": "one", "b": "one"}, "b", None) == "b"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A. 4;B. 5; C. 6 ", ["4", "5", "6"]),
        ("(A) a; b;(B) c", ["a; b", "c"]),
        ("A: up\nB: down", ["up", "down"]),
        ("A. 4;C. 5", ["4;C. 5"]),
        ("4; 5", []),
    ],
)
def test_parse_options_text(text: str, found: list[str]) -> None:
    assert parse_options(text) == dict(zip("ABC", found, strict=False))


def test_mixed_questions_with_and_without_options(tmp_path: Path) -> None:
    rows = ({"options": [], "gold": "7"}, {"options": [*"ABC"], "gold": "B"}, {"options": ["6", "7"], "gold": "B"})
    items = source(tmp_path, *rows).load(Mixed())
    assert [(item.input, item.answer) for item in items] == [
        ("Which?", "7"), ("Which?", "B"), ("Which?\nA. 6\nB. 7", "B"),
    ]  # fmt: skip
    with pytest.raises(UserError, match="1 of 3"):
        source(tmp_path, *rows).load(Choice())
