"""Taking turns between keywords, and what is left out."""

from collections import Counter

from dsrl.stages.retrieve.index import Hit
from dsrl.stages.retrieve.passages import interleave, low_score, make_passage, over_quota, wanted


def hit(name: str, text: str | None = None, score: float = 1.0) -> Hit:
    return Hit(source=f"c/{name}", text=text or f"Text of {name}.", score=score)


def found(hits: dict[str, list[Hit]], seed: int = 0) -> list[str]:
    return [passage.source.removeprefix("c/") for passage in interleave(hits, 100, seed)]


def test_a_long_document_gives_its_fitting_piece() -> None:
    text = "Cats sleep all day. " * 3 + "Bees make honey in the hive. " + "Dogs bark. " * 3
    passage = make_passage(hit("long", text, 2.5), "honey bees", 4, 30)
    assert passage.text == "Bees make honey in the hive."
    assert text[passage.offset :].startswith(passage.text)
    assert (passage.id, passage.rank, passage.score) == (f"c/long@{passage.offset}", 4, 2.5)


def test_a_part_of_a_piece_is_found_in_its_document() -> None:
    piece = Hit(source="c/long", offset=1000, text="Cats sleep. Bees make honey.", score=1.0)
    assert make_passage(piece, "honey", 0, 20).offset == 1012


def test_keywords_take_turns_by_rank() -> None:
    hits = {"x": [hit("x0"), hit("x1"), hit("x2")], "y": [hit("y0")], "z": [hit("z0"), hit("z1")]}
    order = found(hits)
    assert {*order[:3]} == {"x0", "y0", "z0"}
    assert {*order[3:5]} == {"x1", "z1"}
    assert order[5:] == ["x2"]


def test_repeats_are_dropped_by_document_and_by_text() -> None:
    hits = {"x": [hit("a"), hit("b", "Same  TEXT.")], "y": [hit("a"), hit("c", "same text.")]}
    assert sorted(found(hits)) in (["a", "b"], ["a", "c"])


def test_pieces_of_one_document_are_different_passages() -> None:
    hits = {"x": [Hit(source="c/a", offset=offset, text=f"Component {offset}.", score=1.0) for offset in (0, 50, 0)]}
    assert [passage.id for passage in interleave(hits, 100, 0)] == ["c/a", "c/a@50"]


def test_low_scores_and_full_quotas_are_counted() -> None:
    hits = {"x": [hit("a", score=3.0), hit("b", score=0.5), hit("d", score=2.0), hit("e", score=2.0)]}
    dropped: Counter[str] = Counter()
    faults = (low_score(1.0), over_quota({"c": 2}, None))
    kept = [passage.source for passage in wanted(interleave(hits, 100, 0), faults, dropped)]
    assert (kept, dropped) == (["c/a", "c/d"], {"low score": 1, "quota of its corpus": 1})


def test_at_most_so_many_passages_of_a_document() -> None:
    hits = {"x": [Hit(source="c/a", offset=offset, text=f"Component {offset}.", score=1.0) for offset in range(3)]}
    dropped: Counter[str] = Counter()
    assert len(list(wanted(interleave(hits, 100, 0), (over_quota({}, 2),), dropped))) == 2
    assert dropped == {"quota of its document": 1}


def test_order_is_seeded_and_a_longer_list_begins_with_the_shorter() -> None:
    hits = {name: [hit(f"{name}{rank}") for rank in range(9)] for name in "uvwxyz"}
    assert found(hits, 1) == found(hits, 1) != found(hits, 2)
    shorter = {name: some[:4] for name, some in hits.items()}
    assert found(hits)[:24] == found(shorter)


def test_nothing_found() -> None:
    assert found({}) == found({"x": []}) == []
