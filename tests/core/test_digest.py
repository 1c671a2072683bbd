import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsrl.core import digest as digests
from dsrl.core.digest import digest, file_digest, folder_digest, model_digest, sampled_digest, text_digest

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


@given(st.binary(min_size=1, max_size=300), st.data())
def test_any_changed_byte_changes_the_file_digest(content: bytes, data: st.DataObject) -> None:
    position, flipped = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data"
        path.write_bytes(content)
        before = file_digest(path)
        changed = bytearray(content)
        changed[position] ^= flipped
        path.write_bytes(changed)
        assert file_digest(path) != before


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sparse file of 70 MiB, old enough for the digest cache."""
    monkeypatch.setenv("DSRL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "MIN_AGE_NS", 0)
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.truncate(70 << 20)
    return path


def flip(path: Path, position: int) -> None:
    """Change one byte and restore the modification time."""
    stat = path.stat()
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_any_byte_of_a_large_cached_file_counts(large: Path) -> None:
    found = {file_digest(large)}
    for position in (0, 33_333_333, (70 << 20) - 1):
        assert file_digest(large) in found
        flip(large, position)
        found.add(file_digest(large))
    assert len(found) == 4


def test_unchanged_large_file_is_not_read_again(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file_digest(large)
    monkeypatch.setattr(digests, "_hash_file", lambda path: "read again")
    assert file_digest(large) == before
    os.utime(large)
    assert file_digest(large) == "read again"


def test_file_that_changed_just_now_is_not_cached(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "MIN_AGE_NS", 3600 * 10**9)
    file_digest(large)
    monkeypatch.setattr(digests, "_hash_file", lambda path: "read again")
    assert file_digest(large) == "read again"


def test_unusable_digest_cache_is_ignored(large: Path) -> None:
    before = file_digest(large)
    (large.parent / "cache" / "file_digests.sqlite").write_bytes(b"not a database" * 100)
    assert file_digest(large) == before


def test_sampled_digest_of_old_store_entries(large: Path) -> None:
    before = sampled_digest(large)
    flip(large, 0)
    assert sampled_digest(large) != before
    (large.parent / "small").write_bytes(b"x")
    assert sampled_digest(large.parent / "small") is None


FILES = (
    "config.json",
    "model-00001-of-00002.safetensors",
    "modeling_own.py",
    "vocab.json",
    "merges.txt",
    "deep/er.bin",
)
IGNORED = ("README.md", "LICENSE", ".gitattributes", ".cache/huggingface/x", "__pycache__/own.pyc", "pretraining.json")


def test_model_digest_covers_every_file_but_the_ignored_ones(tmp_path: Path) -> None:
    for name in (*FILES, *IGNORED):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    found = {model_digest(tmp_path)}
    for number, name in enumerate(FILES, 2):
        (tmp_path / name).write_text("changed")
        found.add(model_digest(tmp_path))
        assert len(found) == number, name
    for name in IGNORED:
        (tmp_path / name).write_text("changed")
        assert model_digest(tmp_path) in found, name
