from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsrl.stages.generate.self_instruct import RougeFilter, common_length, rouge_l, tokenize


def plain(first: Sequence[str], second: Sequence[str]) -> int:
    """The dynamic program of textbooks."""
    row = [0] * (len(second) + 1)
    for one in first:
        before = row
        row = [0]
        for place, other in enumerate(second):
            row.append(before[place] + 1 if one == other else max(row[place], before[place + 1]))
    return row[-1]


WORDS = st.lists(st.sampled_from("abcd"), max_size=40)


@given(WORDS, WORDS)
def test_common_length_equals_the_dynamic_program(first: list[str], second: list[str]) -> None:
    assert common_length(first, second) == plain(first, second)


def test_rouge_l_of_known_pairs() -> None:
    assert rouge_l(tokenize("The cat sat."), tokenize("the CAT sat")) == 1.0
    assert rouge_l(tokenize("police killed the gunman"), tokenize("police kill the gunman")) == pytest.approx(0.75)
    assert rouge_l(tokenize("a b"), tokenize("c d")) == 0.0
    assert rouge_l([], []) == 1.0


def test_other_scripts_are_tokenized() -> None:
    assert tokenize("Über 3 Äpfel?") == ["ber", "3", "pfel"]
    assert tokenize("три яблока") == ["три", "яблока"]


def test_rouge_filter() -> None:
    pool = RougeFilter(["Ada has 3 apples. How many apples now?"], 0.7, 4, 12)
    assert pool.fault("Ada has 4 apples. How many apples now?") == "too similar"
    assert pool.fault("Is it so?") == "unfit length"
    assert pool.fault(" ".join("abcdefghijklm")) == "unfit length"
    other = "A train leaves at nine and takes two hours."
    assert pool.fault(other) is None
    pool.add(other)
    assert pool.fault(other) == "too similar"
