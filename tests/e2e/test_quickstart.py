"""The quickstart from end to end, and reruns with changed settings."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from dsrl.core.parquet import read_table
from dsrl.data.sample import Sample
from tests.command import CHECKOUT
from tests.e2e.runs import SMALL, Place, metrics, requests

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="session")
def first(finished: Place) -> dict[str, Any]:
    """`metrics.json` of the uninterrupted run."""
    return metrics(finished.folder / "first")


def test_the_whole_method_runs_and_writes_all_outputs(finished: Place, first: dict[str, Any]) -> None:
    assert first["status"] == "finished"
    assert first["rows"]["generate"]["out"] == 24
    assert first["rows"]["rewrite"]["out"] > 24
    assert first["select"]["selected"] == 8
    assert first["train"]["steps"] == 4
    assert {"base", "trained", "difference"} <= set(first["evaluate"])
    assert first["evaluate"]["base"]["n"] == 24
    assert set(first["reused"].values()) == {False}
    for name in ("report.html", "config.yaml", "run.json"):
        assert (finished.folder / "first" / name).stat().st_size > 0
    assert (finished.store / "mlflow.db").is_file()
    model = finished.entry("train", first) / "model"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in model.iterdir()}


def test_the_full_quickstart_improves_the_model(cache: Path, tmp_path: Path) -> None:
    """`make quickstart` at full size, as in the README."""
    place = Place(tmp_path, cache)
    found = place.run("experiment=quickstart", "tracking.enabled=false")
    assert found["status"] == "finished"
    assert found["warnings"] == []
    assert found["select"]["shortfall"] == 0
    assert found["evaluate"]["base"]["n"] == 400
    assert 0.3 < found["evaluate"]["base"]["pass_at_1"] < 0.6
    assert found["evaluate"]["difference"]["low"] > 0.05


def test_every_sample_has_its_provenance(finished: Place, first: dict[str, Any]) -> None:
    samples = read_table(finished.entry("score", first) / "samples.parquet", Sample)
    by_id = {sample.id: sample for sample in samples}
    for sample in samples:
        assert sample.votes is not None
        assert sample.score is not None
        assert sample.score.num_rollouts == 4
        assert sample.provenance.calls
        assert sample.source_id in by_id
        if sample.origin == "initial":
            assert sample.probe is not None
            assert sample.provenance.passage is not None
        else:
            assert sample.parent_id in by_id


def documented() -> list[str]:
    """Keys in the first column of docs/metrics.md."""
    rows = re.findall(r"^\| (`.*?) \| ", (CHECKOUT / "docs" / "metrics.md").read_text(encoding="utf-8"), re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def test_every_documented_key_of_the_metrics_is_there(first: dict[str, Any]) -> None:
    names = documented()
    assert len(names) > 15
    for name in names:
        key, _, rest = name.partition("{")
        if key.startswith(("rounds", "replies")):  # only with several rounds, only in SynthRL
            continue
        assert key in first, name
        if key == "evaluate":
            for inner in rest.rstrip("}").split(", "):
                assert inner in first["evaluate"], name
        elif rest and key not in ("score", "select", "train", "calls"):
            assert isinstance(first[key], dict), name


@pytest.mark.parametrize("block", ["score", "select", "train", "calls{role", "evaluate{base", "evaluate{difference"])
def test_blocks_have_exactly_the_documented_figures(block: str, first: dict[str, Any]) -> None:
    text = (CHECKOUT / "docs" / "metrics.md").read_text(encoding="utf-8")
    (meaning,) = [line.partition("` | ")[2] for line in text.splitlines() if line.startswith(f"| `{block}")]
    key, _, inner = block.partition("{")
    found = first[key]["teacher" if inner == "role" else inner] if inner else first[key]
    named = set(re.findall(r"`(\w+)`", meaning)) - {"teacher", "model"}
    assert named
    assert named <= set(found)
    assert set(found) <= named, "undocumented figure"


def test_every_key_of_the_metrics_is_documented(first: dict[str, Any]) -> None:
    known = {name.partition("{")[0].partition("[")[0] for name in documented()}
    assert set(first) <= known | {"stopped_after"}


def test_the_same_command_again_sends_no_request_and_computes_nothing(finished: Place, first: dict[str, Any]) -> None:
    again = finished.run(*SMALL)
    assert requests(again) == 0
    assert set(again["reused"].values()) == {True}
    assert again["keys"] == first["keys"]
    assert again["evaluate"] == first["evaluate"]
    assert again["rows"] == first["rows"]


def test_another_m_costs_nothing_and_reuses_the_base_evaluation(finished: Place) -> None:
    changed = finished.run(*SMALL, "m=6", "stop_after=evaluate_base")
    assert requests(changed) == 0
    assert changed["select"]["selected"] == 6
    reused = {name for name, value in changed["reused"].items() if value}
    assert reused == set(changed["reused"]) - {"select", "train"}
    assert "evaluate_base" in reused


def test_more_samples_cost_only_the_rest(finished: Place, first: dict[str, Any]) -> None:
    more = finished.run(*SMALL, "n=26", "stop_after=generate")
    old, new = (
        {sample.provenance.index: sample.id for sample in read_table(place / "samples.parquet", Sample)}
        for place in (finished.entry("generate", first), finished.entry("generate", more))
    )
    # Candidates beyond n reuse passages from the first one on; there are two more passages now.
    assert [new[i] for i in range(24) if i in new] == [old[i] for i in range(24) if i in old]
    assert 0 < requests(more) < first["calls"]["teacher"]["requests"] / 2


def test_an_edited_prompt_regenerates_the_samples_and_why_names_it(finished: Place, tmp_path: Path) -> None:
    for name in ("dsrl", "conf", "tasks", "corpora"):
        shutil.copytree(CHECKOUT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    prompt = tmp_path / "dsrl" / "prompts" / "generate.jinja"
    prompt.write_text(prompt.read_text(encoding="utf-8").replace("one new sample", "one more new sample"))
    edited = finished.run(*SMALL, "stop_after=generate", PYTHONPATH=str(tmp_path))
    assert edited["reused"] == {"retrieve": True, "generate": False}
    assert requests(edited) > 0
    finished.run(*SMALL, "n=25", "stop_after=generate")
    why = finished.dsrl("why", "generate", edited["keys"]["generate"])
    assert "prompts.generate" in why.out
    assert "one more new sample" in why.out


def test_a_damaged_entry_is_reported_and_computed_again(finished: Place, first: dict[str, Any]) -> None:
    path = finished.entry("probe", first) / "samples.parquet"
    before = path.read_bytes()
    path.write_bytes(before[:100] + bytes([before[100] ^ 1]) + before[101:])
    again = finished.run(*SMALL)
    assert path.read_bytes() == before
    assert {name for name, value in again["reused"].items() if not value} == {"probe"}
    assert "probe" in again["warnings"][0]
    assert requests(again) == 0


def test_the_trained_model_can_be_evaluated_separately(finished: Place, first: dict[str, Any]) -> None:
    measured = finished.run(
        "evaluate",
        *[word for word in SMALL if word.startswith(("rollout.", "evaluate_base.", "task.test.", "tracking."))],
        "task=quickstart",
        "model=hf",
        f"model.path={finished.entry('train', first) / 'model'}",
        "model.max_length=256",
        "model.dtype=float32",
        "rollout.threads=1",
        "score.max_tokens=48",
        "score.temperature=1.0",
    )
    alone, beside = measured["evaluate"]["base"], first["evaluate"]["trained"]
    assert {**alone, "predictions": ""} == {**beside, "predictions": ""}
    compared = finished.dsrl("compare", alone["predictions"], beside["predictions"])
    assert "+0.0 (" in compared.out, compared.err
    assert "0 gained, 0 lost" in compared.out


def test_a_second_round_starts_from_the_first_rounds_model(finished: Place, first: dict[str, Any]) -> None:
    rounds = finished.run(*SMALL, "rounds=2", "rl.max_steps=2")
    (one,) = rounds["rounds"]
    assert one["keys"]["generate"] == rounds["keys"]["generate"] == first["keys"]["generate"]
    for name in ("probe", "score", "select", "train", "evaluate_trained"):
        assert one["keys"][name] != rounds["keys"][name], name
    assert rounds["keys"]["evaluate_base"] == one["keys"]["evaluate_trained"], "evaluated once, as the trained model"
    assert one["reused"]["score"] is True
    assert rounds["reused"]["train"] is False


def test_ls_and_trace_show_the_results(finished: Place, first: dict[str, Any]) -> None:
    listed = finished.dsrl("ls")
    assert listed.code == 0
    for stage, key in first["keys"].items():
        assert f"{stage.partition('_')[0]} " in listed.out
        assert key in listed.out
    selected = json.loads((finished.entry("select", first) / "values.json").read_text())["selected"]
    traced = finished.dsrl("trace", selected[0])
    assert traced.code == 0
    assert first["keys"]["select"] in traced.out
    assert "pass rate" in traced.out
