"""The stage, with the real index and the real offline teacher over HTTP."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from dsrl.context import Context
from dsrl.errors import StageFailed
from dsrl.grade import Number
from dsrl.home import home
from dsrl.llm import Endpoint
from dsrl.quickstart import OfflineTeacher
from dsrl.retrieve import Embedded, NoRetriever, Retrieve
from dsrl.retrieve.stage import distinct
from dsrl.study import Study
from dsrl.task import Task

INSTRUCTION = yaml.safe_load((home() / "conf/task/quickstart.yaml").read_text())["instruction"]
TASK = Task(name="stories", instruction=INSTRUCTION, answer=Number(), domain="everyday counting")
STUDY = Study(task=TASK)
UNREACHABLE = Endpoint(model="nobody", base_url="http://127.0.0.1:9/v1", max_retries=0)


def corpus(folder: Path) -> Embedded:
    texts = ("A market stall with apples.", "The school library.", "Coins in a collection.", "Apples from the garden.")
    path = folder / "four.jsonl"
    path.write_text("".join(json.dumps({"id": str(n), "text": text}) + "\n" for n, text in enumerate(texts)))
    return Embedded(corpora=(str(path),))


def stage(folder: Path, **changes: Any) -> Retrieve:
    return Retrieve(**{"retriever": corpus(folder), "teacher": UNREACHABLE, "num_passages": 3, **changes})


def said(context: Context) -> str:
    return context.progress.stream.getvalue()  # type: ignore[attr-defined]


def test_given_keywords_are_searched_without_a_teacher(tmp_path: Path, context: Context) -> None:
    study = stage(tmp_path, keywords=("apple", "library"))(STUDY, context)
    assert study.keywords == ("apple", "library")
    assert {passage.source for passage in study.passages} == {"four/0", "four/1", "four/3"}
    assert study.figures["hits"] == {"apple": 2, "library": 1}
    assert study.figures["rows"] == {"in": 3, "out": 3}
    assert said(context) == ""


def test_the_teacher_names_keywords_and_the_domain_joins_them(tmp_path: Path, context: Context) -> None:
    teacher = Endpoint(model="offline-rules-v1", server=OfflineTeacher(), backoff=0.01)
    make = stage(tmp_path, teacher=teacher, num_keywords=4)
    study = make(STUDY, context)
    context.close()
    assert study.keywords[0] == "everyday counting"
    assert 1 < len(study.keywords) <= 5
    assert make(STUDY, context) == study
    assert context.ledger.totals()["teacher"]["completions"] == 1


def test_a_teacher_without_keywords_fails_the_stage(tmp_path: Path, context: Context) -> None:
    refuses = Task(name="poems", instruction="Write a poem.", answer=Number())
    teacher = Endpoint(model="offline-rules-v1", server=OfflineTeacher())
    with pytest.raises(StageFailed, match="named no keywords\n  got:     refused"):
        stage(tmp_path, teacher=teacher)(Study(task=refuses), context)
    context.close()


def test_no_hits_is_a_warning(tmp_path: Path, context: Context) -> None:
    study = stage(tmp_path, keywords=("quantum",))(STUDY, context)
    assert study.passages == ()
    assert "WARNING retrieve: none of 1 keywords finds a passage" in said(context)


def test_without_a_retriever_nobody_is_asked(tmp_path: Path, context: Context) -> None:
    study = stage(tmp_path, retriever=NoRetriever())(STUDY, context)
    assert study.keywords == study.passages == ()
    assert study.figures["rows"] == {"in": 0, "out": 0}


def test_more_passages_begin_with_the_same_ones(tmp_path: Path, context: Context) -> None:
    few, many = (
        stage(tmp_path, keywords=("apple", "library", "coins"), num_passages=number)(STUDY, context).passages
        for number in (2, 4)
    )
    assert many[:2] == few


def test_the_key_knows_corpus_and_prompt(tmp_path: Path) -> None:
    parents = {"definition": "d"}
    key = stage(tmp_path).key(parents)
    assert stage(tmp_path).key(parents) == key
    assert stage(tmp_path, seed=1).key(parents) != key
    changed = stage(tmp_path)
    (tmp_path / "four.jsonl").write_text('{"id": "1", "text": "another"}\n')
    assert changed.key(parents) != key
    assert set(changed.parts()["prompts"]) >= {"task", "keywords"}


@pytest.mark.parametrize(
    ("named", "kept"),
    [
        (["a", "b", "A "], ("a", "b")),
        ([" market  stall", "Market Stall", "", "  "], ("market  stall",)),
        ([], ()),
    ],
)
def test_distinct(named: list[str], kept: tuple[str, ...]) -> None:
    assert distinct(named) == kept
