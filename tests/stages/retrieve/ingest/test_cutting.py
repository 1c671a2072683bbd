"""Where documents are cut, and that nothing is lost or moved."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsrl.stages.retrieve.ingest.chunking import cut, pieces


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
        ("It rained. Then Dr. Who came in", 20, "It rained."),
        ("Seen in mice. As E. coli does", 22, "Seen in mice."),
        ("\u5929\u6c14\u5f88\u597d\u3002\u6211\u4eec\u51fa\u53bb\u3002", 7, "\u5929\u6c14\u5f88\u597d\u3002"),
    ],
)
def test_cut(text: str, limit: int, head: str) -> None:
    assert text[: cut(text, limit)] == head


@given(st.text(alphabet="abE .!\n\r\t\u3002\u00a0\U0001f600", max_size=120), st.integers(1, 20))
def test_pieces_lose_nothing_but_space_and_stand_at_their_offsets(text: str, limit: int) -> None:
    made = list(pieces(text, limit))
    assert "".join("".join(piece.split()) for _, piece in made) == "".join(text.split())
    assert all(text[offset : offset + len(piece)] == piece and 0 < len(piece) <= limit for offset, piece in made)
    assert all(piece == piece.strip() for _, piece in made)
    ends = [offset + len(piece) for offset, piece in made]
    assert all(end <= offset for end, (offset, _) in zip(ends, made[1:], strict=False))


def test_a_long_document_is_cut_in_one_pass() -> None:
    text = "A sentence of some words. " * 200_000
    assert sum(1 for _ in pieces(text, 2048)) == pytest.approx(len(text) / 2048, rel=0.05)
