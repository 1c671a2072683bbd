"""Documents are cut at the ends of sentences, and nothing is lost or moved."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsrl.stages.retrieve.ingest.chunking import find_cut, split_text


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
def test_find_cut(text: str, limit: int, head: str) -> None:
    assert text[: find_cut(text, limit)] == head


@given(st.text(alphabet="abE .!\n\r\t\u3002\u00a0\U0001f600", max_size=120), st.integers(1, 20))
def test_pieces_drop_only_space_and_have_correct_offsets(text: str, limit: int) -> None:
    pieces = list(split_text(text, limit))
    assert "".join("".join(piece.split()) for _, piece in pieces) == "".join(text.split())
    assert all(text[offset : offset + len(piece)] == piece and 0 < len(piece) <= limit for offset, piece in pieces)
    assert all(piece == piece.strip() for _, piece in pieces)
    ends = [offset + len(piece) for offset, piece in pieces]
    assert all(end <= offset for end, (offset, _) in zip(ends, pieces[1:], strict=False))


def test_the_time_for_long_documents_is_linear() -> None:
    text = "A sentence of some words. " * 200_000
    assert sum(1 for _ in split_text(text, 2048)) == pytest.approx(len(text) / 2048, rel=0.05)
