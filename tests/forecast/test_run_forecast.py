import json
from dataclasses import replace
from pathlib import Path

import pytest

from dsrl.data.model import Model, count_parameters
from dsrl.data.source import Source
from dsrl.forecast.run_forecast import RunForecaster, model_parameters
from dsrl.forecast.workload import Workload
from dsrl.llm import Endpoint
from dsrl.llm.ledger.ledger import Spending
from dsrl.pipeline.runner import Keys, run_stages
from dsrl.pipeline.state import PipelineState
from dsrl.pipeline.store import write_json
from dsrl.stages.generate import Generate, MajorityVote
from dsrl.stages.retrieve import NoRetriever, Retrieve
from dsrl.stages.rewrite import Rewrite
from tests import toys
from tests.forecast.small_run import (
    PRICE,
    TASK,
    files,
    forecast_run,
    initial_state,
    make_context,
    pipeline,
    run_pipeline,
)

COMPARED = ("requests", "input_tokens", "output_tokens")


def spent(where: toys.Context, stage: str) -> Spending:
    return where.ledger.sums(stage)


def test_a_forecast_sends_and_writes_nothing(tmp_path: Path) -> None:
    where = make_context(tmp_path)
    before = files(tmp_path)
    forecast = forecast_run(pipeline(n=20), where)
    assert files(tmp_path) == before
    assert where.ledger.sums() == Spending()
    assert {row.status for row in forecast.rows.values()} == {"new", "unknown"}
    assert forecast.rows["probe"].workload is None
    usual = forecast.rows["generate"].workload
    assert usual is not None
    assert 40 <= usual.requests.expected <= 80  # a draft and one to three waves of votes
    assert usual.requests.low <= usual.requests.expected <= usual.requests.high


def test_stored_stages_cost_nothing_and_cached_candidates_predict_the_rest(tmp_path: Path) -> None:
    first = make_context(tmp_path)
    run_pipeline(pipeline(n=12), first)
    assert {row.status for row in forecast_run(pipeline(n=12), first).rows.values()} == {"stored"}
    assert forecast_run(pipeline(n=12), first).total.requests.high == 0

    stages = pipeline(n=40)
    second = toys.context(tmp_path)
    state = initial_state()
    run_stages({"retrieve": stages["retrieve"]}, state, second)  # whose passages begin with those of the first run
    forecast = forecast_run(stages, second)
    run_pipeline(stages, second)
    for name in ("generate", "rewrite"):
        row = forecast.rows[name]
        assert row.status == "begun", name
        assert row.workload is not None
        assert row.workload.cached.completions == spent(second, name).store_hits
        for figure in COMPARED:
            expected, real = getattr(row.workload, figure), getattr(spent(second, name), figure)
            assert expected.expected == pytest.approx(real, rel=0.35), (name, figure)  # from twelve candidates


def test_a_changed_test_set_is_assumed_to_leave_the_same_passages(tmp_path: Path) -> None:
    def on(question: str) -> PipelineState:
        (tmp_path / "test.jsonl").write_text(json.dumps({"Input": question, "Output": "1"}) + "\n")
        return PipelineState(task=replace(TASK, test=Source(path=str(tmp_path / "test.jsonl"))))

    where, stages = make_context(tmp_path), pipeline(n=6)
    run_stages(stages, on("How many?"), where)
    changed = on("How many are there?")
    forecast = RunForecaster(where.store, Keys(changed), where.reply_cache).run(stages, changed)
    assert [row.status for row in forecast.rows.values()] == ["begun", "stored", "stored", "stored"]
    assert forecast.total.requests.high == 0
    run_stages(stages, changed, where)
    where.close()
    assert where.metrics["reused"] == {"retrieve": False, "generate": True, "probe": True, "rewrite": True}


def test_an_unfinished_stage_with_all_replies_cached_is_free(tmp_path: Path) -> None:
    where = make_context(tmp_path)
    stages = pipeline(n=8)
    run_pipeline(stages, where)
    manifests = list((tmp_path / "store" / "stages" / "generate").glob("*/manifest.json"))
    manifests[0].unlink()
    row = forecast_run(stages, where).rows["generate"]
    assert row.status == "begun"
    assert row.workload is not None
    assert (row.workload.requests.high, row.workload.output_tokens.high) == (0, 0)
    assert row.workload.cached.completions == spent(where, "generate").completions


def test_an_earlier_run_of_the_task_is_used_if_no_reply_is_cached(tmp_path: Path) -> None:
    where = make_context(tmp_path)
    run_pipeline(pipeline(n=30), where)
    row = forecast_run(pipeline(n=30, seed=1), where).rows["generate"]
    assert row.workload is not None
    assert row.workload.basis == "an earlier run"
    assert row.workload.requests.expected == pytest.approx(spent(where, "generate").requests, rel=0.1)
    assert row.workload.output_tokens.expected == pytest.approx(spent(where, "generate").output_tokens, rel=0.1)


def test_an_earlier_run_counts_with_its_cache_hits(tmp_path: Path) -> None:
    run_pipeline(pipeline(n=10), make_context(tmp_path))
    stages = pipeline(n=30)
    stages["retrieve"] = pipeline(n=10)["retrieve"]  # so that the first ten candidates are the same
    where = toys.context(tmp_path)
    run_pipeline(stages, where)
    spent_now = spent(where, "generate")
    assert spent_now.store_hits > 20
    other = pipeline(n=30, seed=1)
    row = forecast_run(other, where).rows["generate"].workload
    assert row is not None
    assert row.basis == "an earlier run"
    written = spent_now.output_tokens + spent_now.hit_output_tokens
    assert row.output_tokens.expected == pytest.approx(written, rel=0.1)


@pytest.mark.parametrize(("price", "known"), [(None, False), (PRICE, True)])
def test_an_unknown_price_makes_dollars_unknown(tmp_path: Path, price: object, known: bool) -> None:
    forecast = forecast_run(pipeline(price=price), make_context(tmp_path))
    usd, row = forecast.usd(), forecast.rows["generate"].workload
    assert row is not None
    if known:
        assert usd is not None
        assert row.usd() == row.input_tokens * 1e-6 + row.output_tokens * 4e-6
        assert 0 < usd.low < usd.expected < usd.high
    else:
        assert usd is None


def test_the_batch_price_is_shown_beside_the_usual_one(tmp_path: Path) -> None:
    where = make_context(tmp_path)
    half = replace(PRICE, batch=0.5)
    usual, batch = (
        forecast_run(pipeline(price=PRICE), where),
        forecast_run(pipeline(price=half, takes_batch=True), where),
    )
    assert usual.batch_usd() is None
    found, usd = batch.batch_usd(), batch.usd()
    assert found is not None
    assert usd is not None
    assert found.expected == pytest.approx(usd.expected / 2)


@pytest.mark.parametrize("stop", ["certain", "none"])
@pytest.mark.parametrize("takes_n", [True, False])
def test_votes_are_simulated_by_their_own_rules(tmp_path: Path, stop: str, takes_n: bool) -> None:
    teacher = Endpoint(model="m", base_url="http://127.0.0.1:1/v1", takes_n=takes_n)
    vote = MajorityVote(teacher=teacher, votes=16, stop=stop)  # type: ignore[arg-type]
    stage = Generate(teacher=teacher, n=10, pattern=False, verify=(vote,))
    nothing = Retrieve(retriever=NoRetriever(), teacher=teacher, num_passages=10)
    row = forecast_run({"retrieve": nothing, "generate": stage}, make_context(tmp_path)).rows["generate"].workload
    assert row is not None
    each = row.requests.expected / 10 * 0.9  # roughly one in ten is rejected
    if not takes_n:
        assert (15 if stop == "none" else 8) <= each <= (18 if stop == "none" else 16)
    elif stop == "none":
        assert row.requests.low == pytest.approx(20)  # a draft and all votes at once
    else:
        assert 1.5 <= each <= 4


@pytest.mark.parametrize(("direction", "low", "high"), [("none", 0, 0), ("harder", 20, 40), ("both", 40, 40)])
def test_only_samples_that_will_be_rewritten_count(tmp_path: Path, direction: str, low: int, high: int) -> None:
    stages = pipeline(n=40)
    rewrite = stages["rewrite"]
    assert isinstance(rewrite, Rewrite)
    stages["rewrite"] = replace(rewrite, direction=direction, verify=())  # type: ignore[arg-type]
    row = forecast_run(stages, make_context(tmp_path)).rows["rewrite"].workload
    assert row is not None
    assert low <= row.requests.expected <= high


def test_a_second_round_repeats_the_stages_that_depend_on_the_model(tmp_path: Path) -> None:
    folder = toys.write_model(tmp_path / "base", 1)
    state = replace(initial_state(), base=Model(name="b", path=str(folder)))
    where = make_context(tmp_path)
    stages = pipeline(n=20)
    once = RunForecaster(where.store, Keys(state), None).run(stages, state)
    twice = RunForecaster(where.store, Keys(state), None).run(stages, state, rounds=2)
    assert twice.total.requests.expected == once.total.requests.expected * 2


def test_the_size_of_a_model_is_read_from_its_folder(tmp_path: Path) -> None:
    shapes = {
        "hidden_size": 3584,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18944,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
    }
    assert count_parameters(shapes) == pytest.approx(7.62e9, rel=0.01)  # Qwen2.5-7B
    write_json(tmp_path / "config.json", shapes)
    assert model_parameters(Model(name="m", path=str(tmp_path))) == pytest.approx(7.62, rel=0.01)
    assert model_parameters(Model(name="m", path=str(tmp_path), parameters=3.0)) == 3.0
    write_json(tmp_path / "config.json", {"model_type": "mamba"})
    assert model_parameters(Model(name="m", path=str(tmp_path))) is None
    assert model_parameters(None) is None


def test_stages_without_a_forecast_are_unknown(tmp_path: Path) -> None:
    state = toys.state(tmp_path)
    where = toys.context(tmp_path)
    forecast = RunForecaster(where.store, Keys(state), None).run(toys.pipeline(), state)
    assert {row.workload for row in forecast.rows.values()} == {None}
    assert "tell" not in forecast.rows
    assert forecast.total == Workload()


def test_the_task_has_demos() -> None:
    assert TASK.demos  # the source of lengths if no reply is cached
