"""Selects passages from hits: interleaving of keywords, filters, quotas, overlap with the test set."""

from collections import Counter

from dsrl.data.sample import Passage
from dsrl.stages.retrieve.passages import (
    filter_passages,
    interleave,
    make_passage,
    overlap_filter,
    quota_filter,
    score_filter,
)
from dsrl.stages.retrieve.searcher import SearchHit


def hit(name: str, text: str | None = None, score: float = 1.0) -> SearchHit:
    return SearchHit(source=f"c/{name}", text=text or f"Text of {name}.", score=score)


def piece(offset: int) -> SearchHit:
    return SearchHit(source="c/a", offset=offset, text=f"Piece {offset}.", score=1.0)


def sources(hits: dict[str, list[SearchHit]], seed: int = 0) -> list[str]:
    return [passage.source.removeprefix("c/") for passage in interleave(hits, 100, seed)]


def test_a_long_text_is_cut_to_the_part_with_the_keyword() -> None:
    text = "Cats sleep all day. " * 3 + "Bees make honey in the hive. " + "Dogs bark. " * 3
    passage = make_passage(hit("long", text, 2.5), "honey bees", 4, 30)
    assert passage.text == "Bees make honey in the hive."
    assert text[passage.offset :].startswith(passage.text)
    assert (passage.id, passage.rank, passage.score) == (f"c/long@{passage.offset}", 4, 2.5)


def test_the_offset_of_a_part_counts_from_the_start_of_the_document() -> None:
    piece = SearchHit(source="c/long", offset=1000, text="Cats sleep. Bees make honey.", score=1.0)
    assert make_passage(piece, "honey", 0, 20).offset == 1012


def test_every_keyword_gets_its_first_passage_before_any_gets_its_second() -> None:
    hits = {"x": [hit("x0"), hit("x1"), hit("x2")], "y": [hit("y0")], "z": [hit("z0"), hit("z1")]}
    order = sources(hits)
    assert {*order[:3]} == {"x0", "y0", "z0"}
    assert {*order[3:5]} == {"x1", "z1"}
    assert order[5:] == ["x2"]


def test_repeats_are_dropped_by_document_and_by_text() -> None:
    hits = {"x": [hit("a"), hit("b", "Same  TEXT.")], "y": [hit("a"), hit("c", "same text.")]}
    assert sorted(sources(hits)) in (["a", "b"], ["a", "c"])


def test_pieces_of_a_document_are_distinct_passages() -> None:
    hits = {
        "x": [SearchHit(source="c/a", offset=offset, text=f"Component {offset}.", score=1.0) for offset in (0, 50, 0)]
    }
    assert [passage.id for passage in interleave(hits, 100, 0)] == ["c/a", "c/a@50"]


def test_dropped_passages_are_counted_by_reason() -> None:
    hits = {"x": [hit("a", score=3.0), hit("b", score=0.5), hit("d", score=2.0), hit("e", score=2.0)]}
    dropped: Counter[str] = Counter()
    filters = (score_filter(1.0), quota_filter({"c": 2}, None))
    kept = [passage.source for passage in filter_passages(interleave(hits, 100, 0), filters, dropped)]
    assert (kept, dropped) == (["c/a", "c/d"], {"low score": 1, "quota of its corpus": 1})


def test_passages_per_document_are_limited() -> None:
    hits = {
        "x": [SearchHit(source="c/a", offset=offset, text=f"Component {offset}.", score=1.0) for offset in range(3)]
    }
    dropped: Counter[str] = Counter()
    assert len(list(filter_passages(interleave(hits, 100, 0), (quota_filter({}, 2),), dropped))) == 2
    assert dropped == {"quota of its document": 1}


def test_order_is_seeded_and_more_hits_only_append_passages() -> None:
    hits = {name: [hit(f"{name}{rank}") for rank in range(9)] for name in "uvwxyz"}
    assert sources(hits, 1) == sources(hits, 1) != sources(hits, 2)
    shorter = {name: some[:4] for name, some in hits.items()}
    assert sources(hits)[:24] == sources(shorter)


def test_no_hits_give_no_passages() -> None:
    assert sources({}) == sources({"x": []}) == []


WORDS = [f"w{number}" for number in range(40)]
ITEM = " ".join(WORDS)
OTHER_ITEMS = [" ".join(f"x{number}_{place}" for place in range(30)) for number in range(20)]


def overlap(text: str, *items: str) -> str | None:
    passage = Passage(id="p", text=text, source="c/p", offset=0, keyword="k", rank=0, score=1.0)
    return overlap_filter(items or [*OTHER_ITEMS, ITEM])(passage)


def test_thirteen_words_in_a_row_are_an_overlap() -> None:
    inside = " ".join(WORDS[9:22])
    assert overlap(f"Before. {inside.upper()}, after.") == "13 words of a test item"
    assert overlap(f"{' '.join(WORDS[9:21])} after") is None
    assert overlap(" ".join(reversed(WORDS))) is None


def test_most_of_an_item_in_separate_parts_is_an_overlap() -> None:
    spread = " and ".join(" ".join(WORDS[start : start + 12]) for start in range(0, 40, 6))
    assert overlap(spread) == "most of a test item"
    assert overlap(" and ".join(" ".join(WORDS[start : start + 8]) for start in range(0, 40, 8))) is None


def test_a_short_item_overlaps_only_as_a_whole() -> None:
    item = "How many apples has Tom?"
    assert overlap("Tell me: how many apples has Tom, the boy?", item) == "a whole test item"
    assert overlap("Tell me how many apples Tom has.", item) is None
    assert overlap("Yes or no? Yes!", "Yes or no") is None


def test_empty_texts_do_not_overlap() -> None:
    passage = Passage(id="p", text=ITEM, source="c/p", offset=0, keyword="k", rank=0, score=1.0)
    assert overlap_filter([])(passage) is None
    assert overlap("") is None
