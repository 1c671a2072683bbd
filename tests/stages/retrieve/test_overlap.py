"""Passages held against a test set."""

from dsrl.data.sample import Passage
from dsrl.stages.retrieve.overlap import TestOverlap

WORDS = [f"w{number}" for number in range(40)]
ITEM = " ".join(WORDS)
OTHERS = [" ".join(f"x{number}_{place}" for place in range(30)) for number in range(20)]


def passage(text: str) -> Passage:
    return Passage(id="p", text=text, source="c/p", offset=0, keyword="k", rank=0, score=1.0)


def fault(text: str, *items: str) -> str | None:
    return TestOverlap(items or [*OTHERS, ITEM])(passage(text))


def test_thirteen_words_in_a_row_are_too_many() -> None:
    inside = " ".join(WORDS[9:22])
    assert fault(f"Before. {inside.upper()}, after.") == "13 words of a test item"
    assert fault(f"{' '.join(WORDS[9:21])} after") is None
    assert fault(" ".join(reversed(WORDS))) is None


def test_most_of_an_item_is_too_much_however_it_is_broken_up() -> None:
    spread = " and ".join(" ".join(WORDS[start : start + 12]) for start in range(0, 40, 6))
    assert fault(spread) == "most of a test item"
    assert fault(" and ".join(" ".join(WORDS[start : start + 8]) for start in range(0, 40, 8))) is None


def test_a_short_item_is_sought_as_a_whole() -> None:
    item = "How many apples has Tom?"
    assert fault("Tell me: how many apples has Tom, the boy?", item) == "a whole test item"
    assert fault("Tell me how many apples Tom has.", item) is None
    assert fault("Yes or no? Yes!", "Yes or no") is None


def test_nothing_overlaps_with_nothing() -> None:
    assert TestOverlap([])(passage(ITEM)) is None
    assert fault("") is None
