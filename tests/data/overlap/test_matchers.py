"""Words whatever their order."""

import numpy
import pytest

from dsrl.data.overlap import matchers
from dsrl.data.overlap.matchers import WordOverlap, stem
from dsrl.data.overlap.tokenize import WordCoder, words


def test_endings_and_small_numbers_are_taken_off() -> None:
    said = "Walking walked walks boxes bus red twelve Twice double 12 thing sing"
    assert [stem(word) for word in words(said)] == [
        "walk", "walk", "walk", "boxe", "bus", "red", "12", "2", "2", "12", "thing", "sing",
    ]  # fmt: skip


def found(items: list[str], texts: list[str], share: float = 0.5) -> list[tuple[int, int]]:
    coder = WordCoder(stem)
    every = numpy.ones(len(items), dtype=bool)
    made = WordOverlap(coder.encode([words(item) for item in items]), every, 10, share)
    return [(text, item) for text, item, _ in made.find(coder.encode([words(text) for text in texts]))]


OTHERS = [" ".join(f"w{number}x{place}" for place in range(12)) for number in range(40)]
ITEM = "the tall baker of Ulm sells twelve plaited loaves before noon"


def test_both_must_have_half_of_the_weight() -> None:
    items = [*OTHERS, ITEM]
    assert found(items, ["before noon, 12 loaves: plaited ones, that the baker from Ulm is selling"]) == [(0, 40)]
    assert (
        found(items, [f"{ITEM} {' '.join(OTHERS[0].split())} and much more besides, all of it of no concern here"])
        == []
    )
    assert found(items, ["a baker in Ulm"]) == []


def test_six_words_at_least() -> None:
    assert found([*OTHERS, "five rare words of old"], ["five rare words of old"]) == []
    assert found([*OTHERS, "six quite rare words of old"], ["old words of six quite rare"]) == [(0, 40)]


def test_what_stands_in_many_items_weighs_nothing() -> None:
    frame = "read this passage with care and say which one holds"
    items = [f"{frame} {text}" for text in OTHERS]
    assert found(items, [frame, f"{frame} {OTHERS[7]}", f"{frame} {' '.join(reversed(OTHERS[3].split()))}"]) == [
        (1, 7),
        (2, 3),
    ]


def test_tables_are_made_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = found(OTHERS, OTHERS)
    assert whole == [(place, place) for place in range(40)]
    monkeypatch.setattr(matchers, "MAX_CELLS", 100)
    assert found(OTHERS, OTHERS) == whole
    assert found([], OTHERS) == found(OTHERS, []) == found(["?"], ["!"]) == []
