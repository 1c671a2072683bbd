import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsrl import prompts
from dsrl.cli.store_commands import reasons
from dsrl.core.component import component
from dsrl.core.errors import StageFailed, UserError
from dsrl.data.source import Source
from dsrl.graders import Number
from dsrl.pipeline.context import Context
from dsrl.pipeline.runner import run_stages
from dsrl.pipeline.stage import Stage, check_chain
from dsrl.pipeline.state import PipelineState
from dsrl.pipeline.store import damage
from tests import toys
from tests.toys import Choose, Fetch, Learn, Measure, Rank, Tell, Write, context, made, metrics, pipeline, said, state

EVERYTHING = ["fetch", "write", "rank", "choose", "learn", "measure base", "measure trained", "tell"]


@pytest.fixture(autouse=True)
def _nothing_made() -> None:
    made.clear()


def again(
    folder: Path, stages: dict[str, Stage] | None = None, start: PipelineState | None = None, **options: Any
) -> PipelineState:
    """One run on the store in `folder`; afterwards `made` holds what it computed."""
    made.clear()
    surroundings = context(folder)
    try:
        return run_stages(stages or pipeline(), start or state(folder), surroundings, **options)
    finally:
        surroundings.close()


def test_a_second_run_computes_nothing_and_ends_in_the_same_study(tmp_path: Path) -> None:
    first = again(tmp_path)
    assert made == EVERYTHING
    second = again(tmp_path)
    assert made == ["tell"]
    assert second == first


def test_everything_that_a_stage_adds_is_there_for_the_next(tmp_path: Path) -> None:
    found = again(tmp_path)
    assert [sample.answer for sample in found.samples] == ["1", "2", "3", "4"]
    assert all(sample.score and sample.score.value == 0.5 for sample in found.samples)
    assert found.selected == tuple(sample.id for sample in found.samples[:2])
    assert [passage.source for passage in found.passages] == ["atlas"]
    assert [candidate.reason for candidate in found.rejected] == ["duplicate", "duplicate"]
    assert found.keywords == ("water",)
    assert found.trained is not None
    assert found.trained.path is not None
    assert json.loads((Path(found.trained.path) / "config.json").read_text()) == {"age": 2}
    assert found.base is not None
    assert found.files["rank/rollouts.txt"].read_text() == found.base.fingerprint()


@pytest.mark.parametrize(
    ("changed", "recomputed"),
    [
        ({"write": Write(hands=9)}, []),
        ({"choose": Choose(m=3)}, ["choose", "learn", "measure trained"]),
        ({"write": Write(count=5)}, ["write", "rank", "choose", "learn", "measure trained"]),
        ({"fetch": Fetch(seed=1)}, ["fetch", "write", "rank", "choose", "learn", "measure trained"]),
    ],
)
def test_a_changed_stage_recomputes_what_depends_on_it_and_nothing_else(
    tmp_path: Path, changed: dict[str, Stage], recomputed: list[str]
) -> None:
    again(tmp_path)
    again(tmp_path, pipeline(**changed))
    assert made == [*recomputed, "tell"]
    again(tmp_path)
    assert made == ["tell"], "the first results are still there"


@pytest.mark.parametrize(
    ("task", "recomputed"),
    [
        ({"instruction": "Add up."}, ["fetch", "write", "rank", "choose", "learn", "measure trained"]),
        ({"test": "other"}, ["measure base", "measure trained"]),
        ({"gold": Source(path="some/gold")}, []),
        ({"answer": Number(tolerance=0.5)}, EVERYTHING[:-1]),
        ({"output_format": "Be brief."}, EVERYTHING[:-1]),
    ],
)
def test_a_changed_task_recomputes_only_what_its_change_is_about(
    tmp_path: Path, task: dict[str, Any], recomputed: list[str]
) -> None:
    def source(name: str) -> Source:
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"q": name, "a": "1"}))
        return Source(path=str(tmp_path / f"{name}.jsonl"), input="q", output="a")

    again(tmp_path, start=state(tmp_path, test=source("first")))
    changes = {**task, **({"test": source(task["test"])} if "test" in task else {})}
    again(tmp_path, start=state(tmp_path, **{"test": source("first"), **changes}))
    assert made == [*recomputed, "tell"]


@component("tests.test_runner.Screen")
class Screen(Fetch):
    """Passages that depend on the test set: later stages go by what is left."""

    inputs = ("definition", "test")
    key_by_output = True

    def __call__(self, state: PipelineState, context: Context) -> PipelineState:
        assert state.task.test is not None
        found = super().__call__(state, context)
        about = state.task.test.rows()[0]["q"].split()[0]
        return found.add(passages=tuple(replace(passage, text=about) for passage in found.passages))


def screened(folder: Path, question: str, **changed: Stage) -> dict[str, str]:
    """A run on a test set of one question; `metrics.json` says its keys."""
    (folder / "test.jsonl").write_text(json.dumps({"q": question, "a": "1"}))
    test = Source(path=str(folder / "test.jsonl"), input="q", output="a")
    again(folder, pipeline(**{"fetch": Screen(), **changed}), state(folder, test=test))
    keys: dict[str, str] = metrics(context(folder))["keys"]
    return keys


def test_a_stage_that_is_known_by_its_content_shields_the_later_ones(tmp_path: Path) -> None:
    first = screened(tmp_path, "sea one")
    assert made == EVERYTHING
    second = screened(tmp_path, "sea two")
    assert made == ["fetch", "measure base", "measure trained", "tell"]
    assert second["fetch"] != first["fetch"]
    assert second["write"] == first["write"]
    screened(tmp_path, "lake two")
    assert made == EVERYTHING
    screened(tmp_path, "sea two")
    assert made == ["tell"]


def test_why_follows_what_is_known_by_its_content(tmp_path: Path) -> None:
    for question in ("sea one", "sea two", "lake two"):
        screened(tmp_path, question)
    store = context(tmp_path).store
    found = list(reasons(store, *store.entries("write")))
    tests = [entry.manifest.parents["test"] for entry in store.entries("fetch")]
    assert found == [f"passages <- fetch: test: {tests[1]} -> {tests[2]}"]
    screened(tmp_path, "lake two", fetch=Screen(seed=1))
    assert list(reasons(store, *store.entries("write")[1:])) == ["passages <- fetch: stage.seed: 0 -> 1"]


def test_changed_weights_are_noticed_by_their_content(tmp_path: Path) -> None:
    again(tmp_path)
    toys.write_model(tmp_path / "base", 1)
    start = state(tmp_path)
    toys.write_model(tmp_path / "base", 5)
    again(tmp_path, start=start)
    assert made == ["rank", "choose", "learn", "measure base", "measure trained", "tell"]


def test_an_edited_prompt_is_never_answered_from_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = shutil.copytree(prompts.FOLDER, tmp_path / "prompts")
    monkeypatch.setattr(prompts, "FOLDER", copied)
    again(tmp_path)
    for edited, recomputed in (("rewrite", False), ("generate", True), ("task", True)):
        path = copied / f"{edited}.jinja"
        path.write_text(path.read_text() + "\nBe kind.")
        again(tmp_path)
        assert ("write" in made) is recomputed, edited


def test_the_base_model_is_measured_once_whatever_is_selected(tmp_path: Path) -> None:
    for m in (1, 2, 3):
        again(tmp_path, pipeline(choose=Choose(m=m)))
        assert ("measure base" in made) is (m == 1)


def test_a_failed_stage_keeps_what_was_made_before_it(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="out of ink"):
        again(tmp_path, pipeline(write=Write(fails=True)))
    assert made == ["fetch", "write"]
    assert metrics(context(tmp_path))["rows"] == {"fetch": {"in": 2, "out": 1, "rejected": {}}}
    again(tmp_path)
    assert made == EVERYTHING[1:]


def test_a_damaged_entry_is_said_and_made_again_alone(tmp_path: Path) -> None:
    again(tmp_path)
    surroundings = context(tmp_path)
    (entry,) = surroundings.store.entries("write")
    (entry.folder / "samples.parquet").write_bytes(b"?")
    made.clear()
    run_stages(pipeline(), state(tmp_path), surroundings)
    assert made == ["write", "tell"]
    assert "WARNING store entry write/" in said(surroundings)
    assert "samples.parquet has 1 bytes" in surroundings.progress.warnings[0]
    assert all(damage(entry) is None for entry in surroundings.store.entries())


def test_a_run_stops_after_the_stage_that_it_is_told(tmp_path: Path) -> None:
    found = again(tmp_path, stop_after="rank")
    assert made == ["fetch", "write", "rank"]
    assert found.selected == ()
    assert metrics(context(tmp_path))["keys"].keys() == {"fetch", "write", "rank"}
    again(tmp_path)
    assert made == EVERYTHING[3:]


def test_the_trained_model_of_one_round_is_the_base_of_the_next(tmp_path: Path) -> None:
    found = again(tmp_path, rounds=3)
    assert made.count("learn") == 3
    assert made.count("measure base") == 3
    assert made.count("write") == 1, "what the base model has no part in is the same in every round"
    assert found.trained is not None
    assert found.trained.path is not None
    assert json.loads((Path(found.trained.path) / "config.json").read_text()) == {"age": 4}
    written = metrics(context(tmp_path))
    assert len(written["rounds"]) == 2
    keys = [part["keys"]["learn"] for part in (*written["rounds"], written)]
    assert len(set(keys)) == 3
    assert again(tmp_path, rounds=3) == found
    assert made == ["tell"] * 3


def test_a_stage_may_stand_in_a_pipeline_twice(tmp_path: Path) -> None:
    stages = {"fetch": Fetch(), "write": Write(), "first": Rank(), "second": Rank(), "choose": Choose()}
    again(tmp_path, stages)
    assert made.count("rank") == 2
    again(tmp_path, stages)
    assert made == []


def test_metrics_name_every_stage_with_its_key_rows_and_reasons(tmp_path: Path) -> None:
    again(tmp_path)
    first = metrics(context(tmp_path))
    again(tmp_path)
    second = metrics(context(tmp_path))
    assert first["rows"]["write"] == {"in": 6, "out": 4, "rejected": {"duplicate": 2}}
    assert set(first["seconds"]) == set(pipeline())
    assert set(first["keys"]) == set(pipeline()) - {"tell"}
    assert first["keys"] == second["keys"]
    assert set(first["reused"].values()) == {False}
    assert set(second["reused"].values()) == {True}
    assert first["rows"] == second["rows"]
    assert first["stages"] == second["stages"]
    assert first["stages"]["write"]["ink"] == 0.5


def test_no_stage_is_credited_with_the_figures_of_the_one_before(tmp_path: Path) -> None:
    again(tmp_path)
    figures = metrics(context(tmp_path))["stages"]
    assert figures["choose"] == {}
    assert figures["tell"] == {}


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ({"write": Write(), "fetch": Fetch()}, ["`write` needs `passages`", "write -> fetch", "move `fetch` before"]),
        (
            {"fetch": Fetch(), "write": Write(), "choose": Choose()},
            ["`choose` needs `score`", "add a stage that writes"],
        ),
        ({"learn": Learn()}, ["`learn` needs `samples`"]),
        ({"measured": Measure(of="trained")}, ["`measured` needs `trained`"]),
    ],
)
def test_a_chain_with_a_gap_is_refused_in_words(stages: dict[str, Stage], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        check_chain(stages)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("stages", [{}, {"measured": Measure()}, {"tell": Tell()}, pipeline()])
def test_a_chain_without_a_gap_is_let_through(stages: dict[str, Stage]) -> None:
    check_chain(stages)


def test_missing_replies_are_asked_for_again_before_a_result_is_stored(tmp_path: Path) -> None:
    stages = {"fetch": Fetch(), "write": Write(misses=2)}
    again(tmp_path, stages)
    assert made == ["fetch", "write", "write", "write"]
    again(tmp_path, stages)
    assert made == []


def test_a_result_with_replies_missing_is_not_stored(tmp_path: Path) -> None:
    stages = {"fetch": Fetch(), "write": Write(misses=3)}
    with pytest.raises(StageFailed, match="write: 1 replies are still missing") as caught:
        again(tmp_path, stages)
    assert "accept_missing=true" in str(caught.value)
    again(tmp_path, {"fetch": Fetch(), "write": Write()})
    assert made == ["write"]


def test_missing_replies_can_be_accepted_and_are_said(tmp_path: Path) -> None:
    surroundings = context(tmp_path)
    surroundings.accept_missing = True
    run_stages({"fetch": Fetch(), "write": Write(misses=3)}, state(tmp_path), surroundings)
    surroundings.close()
    assert made == ["fetch", "write", "write", "write"]
    assert "the result is stored without them" in said(surroundings)
