"""The set of texts that came before."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from dsrl.stages.retrieve.ingest.dedup import SLOTS, Seen


@given(st.lists(st.lists(st.sampled_from([f"text {number}" for number in range(12)]), max_size=9), max_size=6))
@settings(max_examples=50)
def test_it_does_what_a_set_does(batches: list[list[str]]) -> None:
    known: set[str] = set()
    with Seen() as seen:
        for batch in batches:
            expected = [text not in known and text not in batch[:place] for place, text in enumerate(batch)]
            assert seen.new(batch) == expected
            known.update(batch)
        assert seen.num_texts == len(known)


def test_it_grows_and_is_read_again(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(3 * SLOTS)]
    with Seen(tmp_path / "seen") as seen:
        for start in range(0, len(texts), 1000):
            assert all(seen.new(texts[start : start + 1000]))
    with Seen(tmp_path / "seen") as seen:
        assert seen.num_texts == len(texts)
        assert seen.new(["Text  1 ", "text 5000", "more"]) == [False, False, True]
    assert [path.name for path in tmp_path.iterdir()] == ["seen"]
    assert (tmp_path / "seen").stat().st_size <= 16 * 8 * SLOTS
