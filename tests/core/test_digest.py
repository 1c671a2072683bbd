from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsrl.core import digest as digests
from dsrl.core.digest import digest, file_digest, folder_digest, text_digest

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=5))
def test_the_order_of_keys_changes_nothing(value: dict[str, Any]) -> None:
    assert digest(value) == digest(dict(reversed(value.items())))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1, 2], [2, 1]),
        (1, "1"),
        (1, 1.0),
        (None, "null"),
        (["a", "b"], ["ab"]),
        ([["a"], "b"], [["a", "b"]]),
        ({"a": None}, {}),
        ("naïve", "naive"),
    ],
)
def test_unequal_values_have_unequal_digests(one: Any, other: Any) -> None:
    assert digest(one) != digest(other)


def test_a_digest_is_the_same_on_every_machine_and_in_every_process() -> None:
    assert digest({"b": [1, 2.5, None], "a": "ü"}) == "91ff63a7ddb19a1b"
    assert len(digest([], length=20)) == 20


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("How  many\napples?", "how many apples?", True),
        (" x ", "x", True),
        ("3 apples", "4 apples", False),
        ("a b", "ab", False),
    ],
)
def test_texts_are_compared_blind_to_case_and_spacing(one: str, other: str, equal: bool) -> None:
    assert (text_digest(one) == text_digest(other)) is equal


def test_a_folder_is_known_by_names_and_contents_of_matching_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "deeper").mkdir()
    before = folder_digest(tmp_path, ("*.json",))
    (tmp_path / "notes.txt").write_text("y")
    assert folder_digest(tmp_path, ("*.json",)) == before
    (tmp_path / "config.json").rename(tmp_path / "other.json")
    renamed = folder_digest(tmp_path, ("*.json",))
    (tmp_path / "other.json").write_text("[]")
    assert len({before, renamed, folder_digest(tmp_path, ("*.json",))}) == 3


def test_a_large_file_is_sampled_at_both_ends_and_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "BLOCK", 8)
    monkeypatch.setattr(digests, "WHOLE_FILE_LIMIT", 64)
    content = bytes(range(200)) * 5
    variants = [content, b"!" + content[1:], content[:-1] + b"!", content + b"!"]
    found = set()
    for variant in variants:
        (tmp_path / "weights").write_bytes(variant)
        found.add(file_digest(tmp_path / "weights"))
    assert len(found) == len(variants)
