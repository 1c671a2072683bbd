"""Finds corpora by name, manifest or path, and computes their keys."""

import json
from pathlib import Path

import pytest

from dsrl.core.errors import UserError
from dsrl.stages.retrieve import Embedded, NoRetriever
from dsrl.stages.retrieve.corpus import find_corpus


def manifest(folder: Path, **changes: object) -> Path:
    """Write a manifest; a value of None removes the field."""
    values = {
        "name": "a", "file": "a.jsonl", "rows": 1, "sha256": "00", "licence": "CC0-1.0", "source": "test",
        "field": "text", **changes,
    }  # fmt: skip
    path = folder / "a.json"
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    return path


def test_the_shipped_corpus_is_found_by_name() -> None:
    documents = list(find_corpus("everyday").documents())
    assert len(documents) == find_corpus("everyday").rows
    assert len({document.id for document in documents}) == len(documents)


def test_a_bare_file_needs_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "notes.jsonl").write_text('{"text": "first"}\n\n{"id": 7, "text": "second"}\n')
    corpus = find_corpus(str(tmp_path / "notes.jsonl"))
    assert corpus.name == "notes"
    assert [(document.id, document.text) for document in corpus.documents()] == [("1", "first"), ("7", "second")]


def test_the_key_depends_on_content_not_on_location(tmp_path: Path) -> None:
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
    here, there = (str(manifest(tmp_path / place)) for place in ("here", "there"))
    assert Embedded(corpora=(here,)).key_fields() == Embedded(corpora=(there,)).key_fields()
    manifest(tmp_path / "there", sha256="01")
    assert Embedded(corpora=(here,)).key_fields() != Embedded(corpora=(there,)).key_fields()


@pytest.mark.parametrize("given", ["nowhere", "nowhere.json", "nowhere.jsonl"])
def test_check_names_a_missing_corpus(given: str) -> None:
    with pytest.raises(UserError, match="nowhere"):
        Embedded(corpora=(given,)).check()


def test_check_refuses_a_manifest_without_its_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"corpus a: (.|\n)*a\.jsonl"):
        Embedded(corpora=(str(manifest(tmp_path)),)).check()


@pytest.mark.parametrize(("changes", "words"), [({"sha256": None}, "sha256"), ({"rows": "1"}, "rows"), ({"x": 1}, "x")])
def test_a_bad_manifest_names_its_key(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=rf"a\.json (.|\n)*got:     {words}: "):
        find_corpus(str(manifest(tmp_path, **changes)))


def test_corpora_must_not_be_empty() -> None:
    with pytest.raises(ValueError, match="corpora"):
        Embedded(corpora=())
    NoRetriever().check()
