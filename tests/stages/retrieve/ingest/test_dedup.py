"""`SeenTexts` is a set of texts in a file."""

from contextlib import closing
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from dsrl.stages.retrieve.ingest.dedup import SeenTexts


@given(st.lists(st.lists(st.sampled_from([f"text {number}" for number in range(12)]), max_size=9), max_size=6))
@settings(max_examples=50)
def test_add_agrees_with_a_set(batches: list[list[str]]) -> None:
    known: set[str] = set()
    with closing(SeenTexts()) as seen:
        for batch in batches:
            expected = [text not in known and text not in batch[:place] for place, text in enumerate(batch)]
            assert seen.add(batch) == expected
            known.update(batch)
        assert len(seen) == len(known)


def test_reopening_a_file_keeps_its_texts(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(12_000)]
    with closing(SeenTexts(tmp_path / "seen")) as seen:
        for start in range(0, len(texts), 1000):
            assert all(seen.add(texts[start : start + 1000]))
    with closing(SeenTexts(tmp_path / "seen")) as seen:
        assert len(seen) == len(texts)
        assert seen.add(["Text  1 ", "text 5000", "more"]) == [False, False, True]
    assert [path.name for path in tmp_path.iterdir()] == ["seen"]
    assert (tmp_path / "seen").stat().st_size < 40 * len(texts)
