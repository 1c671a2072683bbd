"""Runs the stage `retrieve` with a real index and the offline teacher over HTTP."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from dsrl.core.errors import StageFailed, UserError
from dsrl.core.resources import home
from dsrl.data.source import Source
from dsrl.data.task import Task
from dsrl.graders import Number
from dsrl.llm import Endpoint
from dsrl.pipeline.context import Context
from dsrl.pipeline.state import PipelineState
from dsrl.quickstart import OfflineTeacher
from dsrl.stages.retrieve import Embedded, NoRetriever, Retrieve
from dsrl.stages.retrieve.ingest import Ingest
from dsrl.stages.retrieve.stage import Keywords, unique_keywords

INSTRUCTION = yaml.safe_load((home() / "conf/task/quickstart.yaml").read_text())["instruction"]
TASK = Task(name="stories", instruction=INSTRUCTION, answer=Number(), domain="everyday counting")
STATE = PipelineState(task=TASK)
UNREACHABLE = Endpoint(model="nobody", base_url="http://127.0.0.1:9/v1", max_retries=0)


def four_documents(folder: Path) -> Embedded:
    texts = ("A market stall with apples.", "The school library.", "Coins in a collection.", "Apples from the garden.")
    path = folder / "four.jsonl"
    path.write_text("".join(json.dumps({"id": str(n), "text": text}) + "\n" for n, text in enumerate(texts)))
    return Embedded(corpora=(str(path),))


def stage(folder: Path, **changes: Any) -> Retrieve:
    return Retrieve(**{"retriever": four_documents(folder), "teacher": UNREACHABLE, "num_passages": 3, **changes})


def output(of: Context) -> str:
    return of.progress.stream.getvalue()  # type: ignore[attr-defined]


def test_configured_keywords_need_no_teacher(tmp_path: Path, context: Context) -> None:
    state = stage(tmp_path, keywords=("apple", "library"))(STATE, context)
    assert state.keywords == ("apple", "library")
    assert {passage.source for passage in state.passages} == {"four/0", "four/1", "four/3"}
    assert state.figures["hits"] == {"apple": 2, "library": 1}
    assert state.figures["rows"] == {"in": 3, "out": 3}
    assert state.figures["dropped"] == {}
    assert output(context) == ""


def test_keywords_are_the_domain_and_those_of_the_teacher(tmp_path: Path, context: Context) -> None:
    teacher = Endpoint(model="offline-rules-v1", server=OfflineTeacher(), backoff=0.01)
    make = stage(tmp_path, teacher=teacher, num_keywords=4)
    state = make(STATE, context)
    context.close()
    assert state.keywords[0] == "everyday counting"
    assert 1 < len(state.keywords) <= 5
    assert make(STATE, context) == state
    assert context.ledger.totals()["teacher"]["completions"] == 1


def test_a_teacher_without_keywords_fails_the_stage(tmp_path: Path, context: Context) -> None:
    refuses = Task(name="poems", instruction="Write a poem.", answer=Number())
    teacher = Endpoint(model="offline-rules-v1", server=OfflineTeacher())
    with pytest.raises(StageFailed, match=r"offline-rules-v1 (.|\n)*got:     refused"):
        stage(tmp_path, teacher=teacher)(PipelineState(task=refuses), context)
    context.close()


def test_no_hits_give_a_warning(tmp_path: Path, context: Context) -> None:
    state = stage(tmp_path, keywords=("quantum",))(STATE, context)
    assert state.passages == ()
    assert "WARNING retrieve" in output(context)


def test_no_hits_can_stop_the_run(tmp_path: Path, context: Context) -> None:
    with pytest.raises(StageFailed, match=r"2 keywords\n  got:     quantum, C\+\+"):
        stage(tmp_path, keywords=("quantum", "C++"), on_empty="stop")(STATE, context)


def test_keywords_without_hits_are_listed(tmp_path: Path, context: Context) -> None:
    stage(tmp_path, keywords=("apple", "quantum"))(STATE, context)
    assert "quantum" in output(context)


def test_the_domain_alone_needs_no_teacher(tmp_path: Path, context: Context) -> None:
    task = dataclasses.replace(TASK, domain="apples")
    state = stage(tmp_path, domain="alone")(PipelineState(task=task), context)
    assert state.keywords == ("apples",)
    assert {passage.source for passage in state.passages} == {"four/0", "four/3"}


def test_joined_keywords_are_one_query(tmp_path: Path, context: Context) -> None:
    state = stage(tmp_path, keywords=("apple", "library"), queries="joined", num_passages=9)(STATE, context)
    assert state.figures["hits"] == {"apple library": 3}
    assert state.keywords == ("apple", "library")
    assert {passage.keyword for passage in state.passages} == {"apple library"}


def many(folder: Path, count: int = 300) -> Embedded:
    path = folder / "many.jsonl"
    rows = [{"text": f"Apple number {number}. " + "It is red. " * (number % 9)} for number in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Embedded(corpora=(str(path),), ingest=Ingest(max_chars=60))


def test_more_hits_are_fetched_until_enough_passages_remain(tmp_path: Path, context: Context) -> None:
    retriever = many(tmp_path)
    found = [
        stage(tmp_path, retriever=retriever, keywords=("apple", "red"), num_passages=number, max_per_document=1)
        for number in (40, 100, 280)
    ]
    passages = [make(STATE, context).passages for make in found]
    assert [len(some) for some in passages] == [40, 100, 280]
    assert passages[2][:100] == passages[1]
    assert passages[1][:40] == passages[0]


def test_the_reserve_adds_passages(tmp_path: Path, context: Context) -> None:
    make = stage(tmp_path, retriever=many(tmp_path), keywords=("apple",), num_passages=40, reserve=0.5)
    assert len(make(STATE, context).passages) == 60


def test_passages_that_overlap_the_test_set_are_dropped(tmp_path: Path, context: Context) -> None:
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps({"Input": "A market stall with apples.", "Output": "1"}) + "\n")
    task = dataclasses.replace(TASK, test=Source(path=str(test)))
    make = stage(tmp_path, keywords=("apple",))
    state = make(PipelineState(task=task), context)
    assert [passage.source for passage in state.passages] == ["four/3"]
    assert state.figures["dropped"] == {"a whole test item": 1}
    assert "1 passages" in output(context)
    assert (
        len(stage(tmp_path, keywords=("apple",), drop_test_overlap=False)(PipelineState(task=task), context).passages)
        == 2
    )


def test_the_test_set_is_an_input_only_if_it_is_read(tmp_path: Path) -> None:
    assert stage(tmp_path).inputs == ("definition", "test")
    assert stage(tmp_path, drop_test_overlap=False).inputs == ("definition",)
    assert stage(tmp_path, retriever=NoRetriever()).inputs == ("definition",)


@pytest.mark.parametrize("named", [["ok", "x"], ["ok", "x" * 101], ["ok", " "]])
def test_keywords_of_wrong_length_are_invalid(named: list[str]) -> None:
    with pytest.raises(ValueError, match="2 to 100"):
        Keywords(keywords=named)


def test_reranking_needs_its_package_and_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    retriever = dataclasses.replace(four_documents(tmp_path), rerank="dense")
    monkeypatch.setattr("dsrl.stages.retrieve.reranker.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"sentence-transformers\n  next: +pip install 'dsrl\[dense\]'"):
        retriever.check()
    monkeypatch.setattr("dsrl.stages.retrieve.reranker.find_spec", lambda name: name)
    with pytest.raises(UserError, match="rerank_model=FOLDER"):
        retriever.check()
    with pytest.raises(UserError, match="rerank_model"):
        dataclasses.replace(retriever, rerank_model=str(tmp_path)).check()


def test_without_a_retriever_there_are_no_keywords(tmp_path: Path, context: Context) -> None:
    state = stage(tmp_path, retriever=NoRetriever())(STATE, context)
    assert state.keywords == state.passages == ()
    assert state.figures["rows"] == {"in": 0, "out": 0}


def test_more_passages_start_with_the_same_ones(tmp_path: Path, context: Context) -> None:
    few, many = (
        stage(tmp_path, keywords=("apple", "library", "coins"), num_passages=number)(STATE, context).passages
        for number in (2, 4)
    )
    assert many[:2] == few


def test_the_key_depends_on_corpus_and_prompt(tmp_path: Path) -> None:
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
def test_unique_keywords(named: list[str], kept: tuple[str, ...]) -> None:
    assert unique_keywords(named) == kept
