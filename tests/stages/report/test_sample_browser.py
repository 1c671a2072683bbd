import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsrl.stages.report.sample_browser import (
    MAX_TEXT,
    Browser,
    Texts,
    browser,
    choose_rows,
    indices_by_request,
    script_json,
)
from dsrl.stages.report.thumbnails import Thumbnails
from tests.stages.report.made import make_study


def shown(state, context, rows=2000, characters=10**7) -> tuple[Browser, dict]:
    thumbnails = Thumbnails(context.images, 256, 10**7)
    found = browser(state, context.reply_cache, thumbnails, max_rows=rows, max_characters=characters)
    assert found is not None
    return found, json.loads(found.data)


@given(st.text())
def test_script_json_round_trips_and_cannot_end_its_element(text: str):
    data = script_json({"text": text})
    assert json.loads(data) == {"text": text}
    assert not set(data) & set("<>&\u2028\u2029")


def test_rows_have_passage_prompts_replies_rate_relatives_and_outcome(tmp_path: Path):
    state, context = make_study(tmp_path, count=20)
    found, data = shown(state, context)
    rows = {row["id"]: row for row in data["rows"]}
    assert found.complete
    assert found.shown == found.total == len(rows) == len(state.samples) + len(state.rejected)
    for sample in state.samples:
        row = rows[sample.id]
        assert data["passages"][row["passage"]]["text"].startswith("On market day")
        writing, voting = row["exchanges"]
        assert "# Passage" in data["texts"][writing["prompt"][0][1]]
        assert json.loads(data["texts"][writing["replies"][0]["text"]])["input"] == sample.input
        assert len(voting["replies"]) == sample.votes.asked
        assert {reply["read"] for reply in voting["replies"]} == set(sample.votes.counts)
        assert row["rate"] == sample.score.value
        assert row["words"]
        if sample.parent_id:
            assert sample.id in rows[sample.parent_id]["children"]


def test_outcomes_of_all_kinds_of_rows(tmp_path: Path):
    state, context = make_study(tmp_path, count=40)
    _, data = shown(state, context)
    fates = {row["id"]: row["outcome"] for row in data["rows"]}
    assert all(fates[identifier] == "selected" for identifier in state.selected)
    assert {fates[sample.id] for sample in state.samples if sample.score.value == 0} == {"never solved"}
    assert {fates[sample.id] for sample in state.samples if sample.score.value == 1} == {"always solved"}
    assert sum(fate == "rejected" for fate in fates.values()) == len(state.rejected)


def test_selected_rows_come_first_and_the_draw_of_the_others_is_seeded(tmp_path: Path):
    state, _ = make_study(tmp_path, count=60)
    samples, rejected = choose_rows(state, 90)
    selected = list(state.selected)
    assert [sample.id for sample in samples[: len(selected)]] == selected
    assert len(samples) + len(rejected) == 90
    assert rejected
    assert (samples, rejected) == choose_rows(state, 90)
    few, none = choose_rows(state, 10)
    assert [sample.id for sample in few] == selected[:10]
    assert none == []


def test_prompts_and_replies_stop_at_the_budget(tmp_path: Path):
    state, context = make_study(tmp_path, count=20)
    found, data = shown(state, context, characters=2000)
    assert not found.complete
    assert sum(map(len, data["texts"])) < 4000
    first, last = data["rows"][0], data["rows"][-1]
    assert first["exchanges"]
    assert last["bare"]
    assert found.shown == found.total


def test_replies_missing_from_the_cache_are_left_out(tmp_path: Path):
    state, context = make_study(tmp_path, count=2)
    lost = replace(state.samples[0].provenance, calls=("0" * 31 + "f:0",))
    state = replace(state, samples=(state.samples[0].replace(provenance=lost),), selected=(), control=(), rejected=())
    _, data = shown(state, context)
    assert "exchanges" not in data["rows"][0]


def test_a_run_without_rows_has_no_browser(tmp_path: Path):
    state, context = make_study(tmp_path, count=1)
    empty = replace(state, samples=(), rejected=(), selected=())
    assert browser(empty, context.reply_cache, Thumbnails(context.images, 0, 0), max_rows=10, max_characters=10) is None


def test_correct_and_wrong_rollouts_are_shown(tmp_path: Path):
    state, context = make_study(tmp_path, count=2)
    sample = state.samples[0]
    rows = [
        {
            "sample": sample.id,
            "index": i,
            "text": f"reply {i}",
            "correct": i == 7,
            "parsed": "3",
            "finish_reason": "stop",
        }
        for i in range(8)
    ]
    path = tmp_path / "rollouts.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    _, data = shown(replace(state, files={"score/rollouts.parquet": path}), context)
    row = next(row for row in data["rows"] if row["id"] == sample.id)
    assert [data["texts"][reply["text"]] for reply in row["rollouts"]] == ["reply 7", "reply 0", "reply 1", "reply 2"]
    assert [reply.get("right", False) for reply in row["rollouts"]] == [True, False, False, False]


def test_texts_are_stored_once_and_cut_if_very_long():
    texts = Texts(100)
    assert [texts.add("one"), texts.add("two"), texts.add("one")] == [0, 1, 0]
    assert texts.budget == 94
    cut = texts.texts[texts.add("x" * (MAX_TEXT + 5))]
    assert cut.endswith("[5 more characters: see dsrl trace]")


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ((), {}),
        (("a:0", "b:0", "b:1"), {"a": [0], "b": [0, 1]}),
        (("a:3", "b:0", "a:4"), {"a": [3, 4], "b": [0]}),
    ],
)
def test_calls_are_grouped_by_request(calls, expected):
    assert indices_by_request(calls) == expected
