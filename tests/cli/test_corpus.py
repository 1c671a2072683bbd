"""`dsrl corpus`, as it is called."""

import json
from pathlib import Path

import pytest

from dsrl.cli.corpus import corpus
from dsrl.core.errors import UserError
from dsrl.stages.retrieve.index_registry import list_indexes


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"store={tmp_path / 'store'}"


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    rows = [{"Body": "Honey bees live in hives."}, {"Body": "honey  bees live in hives."}, {"Body": "Bears like it."}]
    path = tmp_path / "notes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "?\n")
    return path


def test_index_search_ls_rm(notes: Path, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    field = "retriever.ingest.field=Body"
    assert corpus(["index", str(notes), "everyday", field, store]) == 0
    out = capsys.readouterr().out
    assert "read      123 documents" in out
    assert "left out  1 duplicates, 1 malformed lines" in out
    assert f"{notes}, line 4: not JSON: ?" in out
    assert "indexed   122 documents in 122 pieces" in out
    assert corpus(["search", 'a "honey AND bees', f"corpora={notes},everyday", field, store, "limit=1"]) == 0
    assert "notes/1\n             Honey bees live in hives." in capsys.readouterr().out
    corpus(["ls", store])
    out = capsys.readouterr().out
    assert "corpus  everyday" in out
    assert "122 pieces     notes, everyday" in out
    corpus(["rm", "notes", store])
    assert "would remove" in capsys.readouterr().out
    assert len(list(list_indexes(tmp_path / "store" / "index"))) == 1
    corpus(["rm", "notes", store, "yes=true"])
    assert list(list_indexes(tmp_path / "store" / "index")) == []


def test_a_stricter_bound_holds_for_an_index_that_is_there(notes: Path, store: str) -> None:
    words = ["index", str(notes), "retriever.ingest.field=Body", store]
    assert corpus(words) == 0
    with pytest.raises(UserError, match=r"index of notes: 1 malformed rows\n.*line 4: not JSON"):
        corpus([*words, "retriever.ingest.max_malformed=0"])
    assert corpus(words) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "dsrl corpus index"),
        (["sing"], "corpus index NAME"),
        (["index"], "dsrl corpus index"),
        (["index", "nowhere"], "unknown corpus `nowhere`"),
        (["index", "everyday", "retriever=none"], "corpora"),
        (["index", "everyday", "retriever=nonsense"], "no such retriever"),
        (["index", "everyday", "retriever.nonsense=1"], "no such retriever"),
        (["index", "everyday", "retriever.ingest.max_chars=0"], "retriever.ingest.max_chars"),
        (["index", "everyday", "yes=true"], "yes: unknown option of corpus index"),
        (["search", "two", "words"], "in quotes"),
        (["search", "bees", "limit=many"], "limit: "),
        (["ls", "everyday"], "takes no words"),
        (["rm"], "which corpus"),
        (["rm", "nothing"], "no index of such a corpus"),
        (["rm", "everyday", "yes=perhaps"], "yes: neither"),
    ],
)
def test_mistakes(arguments: list[str], words: str, store: str) -> None:
    with pytest.raises(UserError, match=words):
        corpus([*arguments, store])
