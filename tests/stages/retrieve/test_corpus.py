"""Corpora by name, manifest or file, and what decides their identity."""

import json
from pathlib import Path

import pytest

from dsrl.core.errors import UserError
from dsrl.stages.retrieve import Embedded, NoRetriever
from dsrl.stages.retrieve.corpus import find_corpus


def manifest(folder: Path, **changes: object) -> Path:
    """A manifest; a value of None takes a field out."""
    values = {
        "name": "a", "file": "a.jsonl", "rows": 1, "sha256": "00", "licence": "CC0-1.0", "source": "test",
        "field": "text", **changes,
    }  # fmt: skip
    path = folder / "a.json"
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    return path


def test_the_corpus_that_ships_is_found_by_name() -> None:
    documents = list(find_corpus("everyday").documents())
    assert len(documents) == find_corpus("everyday").rows
    assert len({document.id for document in documents}) == len(documents)


def test_a_bare_file_needs_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "notes.jsonl").write_text('{"text": "first"}\n\n{"id": 7, "text": "second"}\n')
    corpus = find_corpus(str(tmp_path / "notes.jsonl"))
    assert corpus.name == "notes"
    assert [(document.id, document.text) for document in corpus.documents()] == [("1", "first"), ("7", "second")]


def test_identity_is_content_not_place(tmp_path: Path) -> None:
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
    here, there = (str(manifest(tmp_path / place)) for place in ("here", "there"))
    assert Embedded(corpora=(here,)).key_fields() == Embedded(corpora=(there,)).key_fields()
    manifest(tmp_path / "there", sha256="01")
    assert Embedded(corpora=(here,)).key_fields() != Embedded(corpora=(there,)).key_fields()


@pytest.mark.parametrize("given", ["nowhere", "nowhere.json", "nowhere.jsonl"])
def test_a_missing_corpus_is_named_at_once(given: str) -> None:
    with pytest.raises(UserError, match="nowhere"):
        Embedded(corpora=(given,)).check()


def test_a_manifest_without_its_file_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="corpus a: no such file"):
        Embedded(corpora=(str(manifest(tmp_path)),)).check()


@pytest.mark.parametrize(("changes", "words"), [({"sha256": None}, "sha256"), ({"rows": "1"}, "rows"), ({"x": 1}, "x")])
def test_a_bad_manifest_names_its_key(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=f"not the manifest of a corpus\n  got:     {words}: "):
        find_corpus(str(manifest(tmp_path, **changes)))


def test_no_corpora_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="corpora"):
        Embedded(corpora=())
    NoRetriever().check()
