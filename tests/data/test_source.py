import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from dsrl.core.errors import UserError
from dsrl.data.source import Item, Source, read_rows
from dsrl.graders import Choice, Label, Number

ROWS = [{"question": "1 + 1?", "answer": "2"}, {"question": 'Say "5, \u00fc"', "answer": "so #### 5"}]
WRITTEN = {
    "jsonl": "\n".join(json.dumps(row) for row in ROWS) + "\n\n",
    "json": json.dumps(ROWS),
    "csv": 'question,answer\n1 + 1?,2\n"Say ""5, \u00fc""",so #### 5\n',
    "tsv": 'question\tanswer\n1 + 1?\t2\n"Say ""5, \u00fc"""\tso #### 5\n',
}


def source(path: Path, **fields: Any) -> Source:
    return Source(path=str(path), **{"input": "question", "output": "answer", **fields})


@pytest.fixture(params=[*WRITTEN, "parquet"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"data.{request.param}"
    if request.param == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    else:
        path.write_text(WRITTEN[request.param], encoding="utf-8")
    return path


def test_every_file_format_gives_the_same_items(stored: Path) -> None:
    items = source(stored).load(Number())
    assert items == [Item(input="1 + 1?", answer="2"), Item(input='Say "5, \u00fc"', answer="5")]


def test_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "excel.csv"
    path.write_text(WRITTEN["csv"], encoding="utf-8-sig")
    assert len(source(path).rows()) == 2


@pytest.mark.parametrize("mark", ["\u2028", "\x85", "\x0c"])
def test_only_line_feeds_end_rows(mark: str, tmp_path: Path) -> None:
    """`str.splitlines` also splits at these characters, which occur inside strings of texts from the web."""
    (tmp_path / "a.jsonl").write_text(json.dumps({"question": f"a{mark}b", "answer": "1"}, ensure_ascii=False))
    (tmp_path / "a.csv").write_text(f'question,answer\na{mark}b,1\n"c\n{mark}d",2\n')
    assert [item.input for item in source(tmp_path / "a.csv").load(Number())] == [f"a{mark}b", f"c\n{mark}d"]
    if mark != "\x0c":
        assert [item.input for item in source(tmp_path / "a.jsonl").load(Number())] == [f"a{mark}b"]


def test_template(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"context": "3 apples.", "question": "How many?", "answer": "3"}\n')
    (item,) = source(path, template="{context} {question}").load(Number())
    assert item.input == "3 apples. How many?"


def test_limit(stored: Path) -> None:
    assert source(stored, limit=1).rows() == read_rows(stored)[:1]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", "", ["is empty", "0 rows"]),
        ("a.jsonl", '{"question": "1?"}\n', ["no column answer", "columns question", "task.test.output="]),
        ("a.jsonl", '{"question": "1?", "answer": "one"}\n', ["1 of 1 gold answers", "rows [1]", "'one'"]),
        ("a.jsonl", "[1]\n", ["line 1 is not a JSON object"]),
        ("a.jsonl", '{"question": "1?", "answer": "1"}\n{"question"\n', ["line 2 is not JSON"]),
        ("a.json", "{", ["a.json"]),
        ("a.json", "[1, 2]", ["a.json"]),
        ("a.json", '{"question": "1?", "answer": "1"}', ["a.json"]),
        ("a.jsonl", '{"question": "1?", "answer": "1"}\n{"question": "2?"}\n', ["no column answer in row 2"]),
        ("a.txt", "x", ["can't read", ".txt", ".jsonl"]),
        ("a.jsonl", b"\xff\xfe", ["is not UTF-8"]),
        ("a.parquet", "x", ["a.parquet"]),
    ],
)
def test_malformed_data_are_reported_with_file_and_place(
    name: str, content: str | bytes, words: list[str], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        source(path).load(Number())
    for word in words:
        assert word in str(caught.value)


def test_template_with_a_missing_column_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"question": "How many?", "answer": "3"}\n')
    with pytest.raises(UserError, match="context"):
        source(path, template="{context} {question}").load(Number())


@pytest.mark.parametrize("template", ["{question", "question}", "{0!}"])
def test_malformed_template_is_rejected(template: str) -> None:
    with pytest.raises(ValidationError, match="template"):
        Source(path="x", template=template)


def test_gold_answers_are_read_by_the_tasks_grader(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"question": "Which?", "answer": "(b)"}\n')
    assert source(path).load(Choice())[0].answer == "B"
    with pytest.raises(UserError, match="1 of 1"):
        source(path).load(Number())


def test_fingerprint_depends_on_content_and_columns_not_location(tmp_path: Path) -> None:
    one, other = tmp_path / "one.jsonl", tmp_path / "other.jsonl"
    one.write_text(WRITTEN["jsonl"])
    other.write_text(WRITTEN["jsonl"])
    assert source(one).fingerprint() == source(other).fingerprint()
    changed = [source(one, limit=1), source(one, input="answer"), source(one, template="{question}!")]
    found = {source(one).fingerprint(), *(each.fingerprint() for each in changed)}
    other.write_text(WRITTEN["jsonl"].replace("1 + 1", "1 + 2"))
    assert len(found | {source(other).fingerprint()}) == 5


def test_hub_fingerprint_is_id_and_revision() -> None:
    one = Source(path="openai/gsm8k", config="main")
    assert one.local is None
    assert one.fingerprint() != Source(path="openai/gsm8k", config="main", revision="e53f048").fingerprint()


@pytest.mark.parametrize("path", ["missing.jsonl", "/no/such/folder", "./nowhere", "~/nowhere.csv"])
def test_local_looking_paths_are_never_looked_up_on_the_hub(path: str) -> None:
    with pytest.raises(UserError, match=r"missing\.jsonl|/no/such|nowhere"):
        Source(path=path).rows()


def saved(folder: Path, splits: tuple[str, ...]) -> Path:
    import datasets

    data = datasets.Dataset.from_list([{"Input": "1?", "Output": "1"}, {"Input": "2?", "Output": "2"}])
    datasets.disable_progress_bars()
    (datasets.DatasetDict(dict.fromkeys(splits, data)) if splits else data).save_to_disk(folder)
    return folder


@pytest.mark.parametrize("splits", [("test", "train"), ("test",), ()])
def test_saved_dataset_folder(splits: tuple[str, ...], tmp_path: Path) -> None:
    found = Source(path=str(saved(tmp_path / "saved", splits)))
    assert [item.answer for item in found.load(Number())] == ["1", "2"]
    assert found.fingerprint() == Source(path=str(tmp_path / "saved")).fingerprint()


def test_missing_split_lists_the_existing_ones(tmp_path: Path) -> None:
    folder = saved(tmp_path / "saved", ("train", "validation"))
    with pytest.raises(UserError, match="test") as caught:
        Source(path=str(folder)).rows()
    assert "train, validation" in str(caught.value)


def test_other_folders_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=str(tmp_path)):
        Source(path=str(tmp_path)).rows()


def test_nested_columns_and_lists(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    row = {"context": {"parts": ["One.", "Two."]}, "q": "How many?", "a": {"value": 2}, "kind": "sum", "level": 3}
    path.write_text(json.dumps(row) + "\n")
    found = Source(
        path=str(path), template="{context.parts}\n\n{q}", output="a.value", subject="kind", keep=("level", "a.value")
    )
    (item,) = found.load(Number())
    assert item == Item(input="One.\nTwo.\n\nHow many?", answer="2", subject="sum", data={"level": 3, "a.value": 2})


@pytest.mark.parametrize(
    "fields",
    [
        {"subject": "topic"},
        {"keep": ("topic",)},
        {"options": "topic"},
        {"options": ("topic",)},
        {"input": "question.x"},
    ],
)
def test_every_named_column_must_exist(fields: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(WRITTEN["jsonl"])
    with pytest.raises(UserError, match=r"topic|question\.x"):
        source(path, **fields).rows()


def test_row_without_a_question_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("question,answer\n1 + 1?,2\n ,3\n")
    with pytest.raises(UserError, match="1 of 2") as caught:
        source(path).load(Number())
    assert "rows [2]" in str(caught.value)


def test_meanings_map_gold_values_to_labels(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"question": "?", "answer": 0}\n{"question": "??", "answer": 1}\n')
    items = source(path, meanings={"0": "no", "1": "yes"}).load(Label(labels=("yes", "no")))
    assert [item.answer for item in items] == ["no", "yes"]


def test_fingerprint_excludes_size_and_licence(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(WRITTEN["jsonl"])
    plain = source(path)
    assert source(path, size=2, licence="MIT").fingerprint() == plain.fingerprint()
    assert source(path, size=2, licence="MIT").key_fields() == plain.key_fields()
    changed = [
        source(path, **fields) for fields in ({"meanings": {"2": "3"}}, {"subject": "answer"}, {"keep": ("answer",)})
    ]
    assert len({plain.fingerprint(), *(each.fingerprint() for each in changed)}) == 4
    assert all(each.key_fields() != plain.key_fields() for each in changed)


def test_count_of_a_hub_set_is_the_configured_size() -> None:
    assert Source(path="openai/gsm8k").count() is None
    assert Source(path="openai/gsm8k", size=1319).count() == 1319
    assert Source(path="openai/gsm8k", size=1319, limit=24).count() == 24
