"""Cutting documents and taking turns between keywords."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsrl.retrieve.index import Hit
from dsrl.retrieve.passages import cut, interleave, make_passage, pieces


def hit(name: str, text: str | None = None, score: float = 1.0) -> Hit:
    return Hit(source=f"c/{name}", text=text or f"Text of {name}.", score=score)


def found(hits: dict[str, list[Hit]], seed: int = 0) -> list[str]:
    return [passage.source.removeprefix("c/") for passage in interleave(hits, 100, seed)]


@pytest.mark.parametrize(
    ("text", "limit", "head"),
    [
        ("One. Two.", 100, "One. Two."),
        ("One. Two. Three.", 10, "One. Two."),
        ("One. Two. Three.", 9, "One. Two."),
        ("One. Two. Three.", 8, "One."),
        ('He said "no." Then', 14, 'He said "no."'),
        ("Pi is 3.14 exactly", 9, "Pi is"),
        ("a line\nanother line", 12, "a line\n"),
        ("no end in sight", 8, "no end"),
        ("Donaudampfschiff", 5, "Donau"),
    ],
)
def test_cut(text: str, limit: int, head: str) -> None:
    assert text[: cut(text, limit)] == head


@given(st.text(alphabet="ab .\n", max_size=80), st.integers(1, 20))
def test_pieces_lose_nothing_but_space(text: str, limit: int) -> None:
    made = list(pieces(text, limit))
    assert "".join("".join(piece.split()) for _, piece in made) == "".join(text.split())
    assert all(text[offset:].startswith(piece) and 0 < len(piece) <= limit for offset, piece in made)


def test_a_long_document_gives_its_fitting_piece() -> None:
    text = "Cats sleep all day. " * 3 + "Bees make honey in the hive. " + "Dogs bark. " * 3
    passage = make_passage(hit("long", text, 2.5), "honey bees", 4, 30)
    assert passage.text == "Bees make honey in the hive."
    assert text[passage.offset :].startswith(passage.text)
    assert (passage.id, passage.rank, passage.score) == (f"c/long@{passage.offset}", 4, 2.5)


def test_keywords_take_turns_by_rank() -> None:
    hits = {"x": [hit("x0"), hit("x1"), hit("x2")], "y": [hit("y0")], "z": [hit("z0"), hit("z1")]}
    order = found(hits)
    assert {*order[:3]} == {"x0", "y0", "z0"}
    assert {*order[3:5]} == {"x1", "z1"}
    assert order[5:] == ["x2"]


def test_repeats_are_dropped_by_document_and_by_text() -> None:
    hits = {"x": [hit("a"), hit("b", "Same  TEXT.")], "y": [hit("a"), hit("c", "same text.")]}
    assert sorted(found(hits)) in (["a", "b"], ["a", "c"])


def test_order_is_seeded_and_a_longer_list_begins_with_the_shorter() -> None:
    hits = {name: [hit(f"{name}{rank}") for rank in range(9)] for name in "uvwxyz"}
    assert found(hits, 1) == found(hits, 1) != found(hits, 2)
    shorter = {name: some[:4] for name, some in hits.items()}
    assert found(hits)[:24] == found(shorter)


def test_nothing_found() -> None:
    assert found({}) == found({"x": []}) == []
