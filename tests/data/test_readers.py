import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from dsrl.core.errors import UserError
from dsrl.data.official_formats import read_official
from dsrl.data.readers import read_rows
from dsrl.data.source import Source
from tests.command import ENVIRONMENT

DATA = Path(__file__).parents[1] / "cli" / "tasks" / "data"
RECORD = "\nb\nAll ravens are black.\nWhat follows?\nA.One\nB. Two\n(C) Three\nD.Four\n"


def test_logiqa(tmp_path: Path) -> None:
    path = tmp_path / "Test.txt"
    path.write_bytes((RECORD * 2 + "\n").replace("\n", "\r\n").encode())
    rows = read_official(path, "logiqa")
    assert len(rows) == 2
    assert rows[1] == {
        "context": "All ravens are black.",
        "query": "What follows?",
        "options": ["One", "Two", "Three", "Four"],
        "correct_option": 1,
    }


VISION = "index\timage\tquestion\tchoices\tanswer\tcategory\n"


@pytest.mark.parametrize(
    ("layout", "name", "text", "words"),
    [
        ("logiqa", "a.txt", RECORD + "\nc\n", ["10 lines", "multiple of 8"]),
        ("logiqa", "a.txt", RECORD + RECORD.replace("\nb\n", "\ne\n"), ["line 9", "'e'"]),
        ("logiqa", "a.txt", RECORD.replace("(C) Three", "  "), ["line 1"]),
        ("pubmedqa", "a.json", "[]", ["PubMedQA's format"]),
        ("pubmedqa", "a.json", "{", ["a.json is not JSON"]),
        ("pubmedqa", "a.json", '{"7": {"QUESTION": "?", "CONTEXTS": []}}', ["record 7", "final_decision"]),
        ("spider", "a.json", '[{"question": "?", "db_id": "../x", "query": "SELECT 1"}]', ["record 1"]),
        ("spider", "a.json", '[{"question": "?", "db_id": "x", "query": "SELECT 1"}]', ["no database x", "database/x"]),
        (None, "a.csv", "a,b\n1,2,3\n", ["row 1", "3 cells, 2 names"]),
        (None, "a.csv", "a,a\n1,2\n", ["a.csv", "a"]),
        ("mathvision", "a.tsv", "index\timage\n1\tx\n", ["VLMEvalKit's format", "no column question, choices"]),
        ("mathvision", "a.tsv", VISION + "1\tx\tq\topen('x')\t2\tc\n", ["row 1", "choices"]),
        ("mathvista", "a.json", "[]", ["MathVista's format"]),
        ("mathvista", "a.json", '{"7": {"question": "?"}}', ["record 7", "image, choices"]),
    ],
)
def test_malformed_files_are_reported_with_their_place(
    layout: str | None, name: str, text: str, words: list[str], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_official(path, layout) if layout else read_rows(path)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(("encoding", "guess"), [("utf-16", "UTF-16"), ("latin-1", "WINDOWS-1252")])
def test_other_encodings_are_reported_with_line_and_remedy(encoding: str, guess: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"q": "1"}\n{"q": "\u00fc"}\n'.encode(encoding))
    with pytest.raises(UserError, match=f"may be {guess}") as caught:
        read_rows(path)
    assert f"iconv -f {guess}" in str(caught.value)
    if encoding == "latin-1":
        assert "0xfc at 18, in line 2" in str(caught.value)


def test_official_format_applies_to_its_suffix_only(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "?", "final_decision": "yes"}\n')
    assert read_official(path, "pubmedqa") == [{"question": "?", "final_decision": "yes"}]


@pytest.mark.parametrize(
    "place", ["database/pets/pets.sqlite", "dev_databases/pets/pets.sqlite", "databases/pets.sqlite"]
)
@pytest.mark.parametrize("column", ["query", "SQL"])
def test_spider_and_bird_rows_have_a_schema(place: str, column: str, tmp_path: Path) -> None:
    file = tmp_path / place
    file.parent.mkdir(parents=True)
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE pet (name TEXT)")
    connection.close()
    (tmp_path / "dev.json").write_text(json.dumps([{"question": "Who?", "db_id": "pets", column: "SELECT 1"}]))
    (row,) = read_official(tmp_path / "dev.json", "spider")
    assert (row["schema"], row["query"], row["evidence"]) == ("CREATE TABLE pet (name TEXT);", "SELECT 1", "")


def test_unreachable_hub_suggests_a_local_file() -> None:
    code = "from dsrl.data.source import Source; Source(path='openai/gsm8k', config='main').rows()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=240
    )
    assert "openai/gsm8k" in done.stderr
    assert "task.test.path=FILE.jsonl" in done.stderr


def test_missing_file_is_named_as_configured() -> None:
    with pytest.raises(UserError, match=r"Test\.txt") as caught:
        Source(path="Test.txt", format="logiqa").rows()
    assert 'task.test.path=""' in str(caught.value)


def test_long_cells_are_read_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(f"a\tb\n{'x' * 200_000}\t1\n")
    assert len(read_rows(path)[0]["a"]) == 200_000
    monkeypatch.setattr("dsrl.data.readers.MAX_CELL_LENGTH", 100_000)
    with pytest.raises(UserError, match="after line 1"):
        read_rows(path)


def test_vlmevalkit_rows_share_images_and_may_contain_options(tmp_path: Path) -> None:
    path, picture = tmp_path / "a.tsv", "x" * 70
    table = [f"1\t{picture}\tHow many?\t['2', '3']\tB\tc", '2\t1\t"How many?\nChoices: (A) 2 (B) 3"\t[2, 3]\tB\tc']
    path.write_text(VISION + "\n".join(table))
    first, second = read_official(path, "mathvision")
    assert (first["decoded_image"], second["decoded_image"]) == (picture, picture)
    assert (first["options"], second["options"]) == (["2", "3"], [])
