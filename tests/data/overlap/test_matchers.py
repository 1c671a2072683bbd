import numpy
import pytest

from dsrl.data.overlap import matchers
from dsrl.data.overlap.matchers import WordOverlap, stem
from dsrl.data.overlap.tokenize import WordCoder, words


def test_stem() -> None:
    text = "Walking walked walks boxes bus red twelve Twice double 12 thing sing"
    assert [stem(word) for word in words(text)] == [
        "walk", "walk", "walk", "boxe", "bus", "red", "12", "2", "2", "12", "thing", "sing",
    ]  # fmt: skip


def find(items: list[str], texts: list[str], share: float = 0.5) -> list[tuple[int, int]]:
    coder = WordCoder(stem)
    every = numpy.ones(len(items), dtype=bool)
    index = WordOverlap(coder.encode([words(item) for item in items]), every, 10, share)
    return [(text, item) for text, item, _ in index.find(coder.encode([words(text) for text in texts]))]


OTHERS = [" ".join(f"w{number}x{place}" for place in range(12)) for number in range(40)]
ITEM = "the tall baker of Ulm sells twelve plaited loaves before noon"


def test_word_overlap_needs_half_the_weight_of_both_texts() -> None:
    items = [*OTHERS, ITEM]
    assert find(items, ["before noon, 12 loaves: plaited ones, that the baker from Ulm is selling"]) == [(0, 40)]
    assert (
        find(items, [f"{ITEM} {' '.join(OTHERS[0].split())} and much more besides, all of it of no concern here"]) == []
    )
    assert find(items, ["a baker in Ulm"]) == []


def test_word_overlap_needs_six_shared_words() -> None:
    assert find([*OTHERS, "five rare words of old"], ["five rare words of old"]) == []
    assert find([*OTHERS, "six quite rare words of old"], ["old words of six quite rare"]) == [(0, 40)]


def test_words_in_many_items_weigh_nothing() -> None:
    frame = "read this passage with care and say which one holds"
    items = [f"{frame} {text}" for text in OTHERS]
    assert find(items, [frame, f"{frame} {OTHERS[7]}", f"{frame} {' '.join(reversed(OTHERS[3].split()))}"]) == [
        (1, 7),
        (2, 3),
    ]


def test_word_overlap_in_blocks_equals_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = find(OTHERS, OTHERS)
    assert whole == [(place, place) for place in range(40)]
    monkeypatch.setattr(matchers, "MAX_CELLS", 100)
    assert find(OTHERS, OTHERS) == whole
    assert find([], OTHERS) == find(OTHERS, []) == find(["?"], ["!"]) == []
