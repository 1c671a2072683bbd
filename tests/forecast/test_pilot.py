from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from dsrl.core.component import component
from dsrl.core.errors import BudgetReached, StageFailed
from dsrl.data.model import Model, Reply
from dsrl.forecast.pilot import Pilot, PilotResult
from dsrl.llm.ledger.ledger import Ledger
from dsrl.llm.reply_cache.cache import ReplyCache
from dsrl.pipeline.context import Context
from dsrl.pipeline.runner import Keys
from dsrl.pipeline.stage import Stage
from dsrl.pipeline.state import PipelineState
from tests import toys
from tests.forecast.small_run import PRICE, Guess, forecast_run, initial_state, make_context, pipeline, run_pipeline


def run_pilot(
    stages: dict[str, Stage], where: Context, count: int = 5, state: PipelineState | None = None
) -> PilotResult:
    state = state or initial_state()
    try:
        return Pilot(count, Keys(state), where).run(stages, state, None)
    finally:
        where.close()


def pilot_context(folder: Path, **changes: object) -> Context:
    where = replace(make_context(folder), **changes)  # type: ignore[arg-type]
    where.metrics.update({name: {} for name in ("keys", "seconds", "reused", "rows", "stages")})
    return where


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> PipelineState:
    """The result of a run without a pilot."""
    return run_pipeline(pipeline(n=24), make_context(tmp_path_factory.mktemp("untouched")))


def test_a_run_reuses_the_pilots_replies_and_ends_with_the_same_samples(
    untouched: PipelineState, tmp_path: Path
) -> None:
    first = pilot_context(tmp_path)
    pilot = run_pilot(pipeline(n=24), first)
    paid = first.ledger.sums()
    assert paid.completions > 5 * (1 + 3) * 2  # drafts and votes, generated and rewritten
    assert pilot.samples[:5] == untouched.samples[:5]
    assert pilot.latency is not None

    forecast = forecast_run(pipeline(n=24), first)
    assert forecast.rows["retrieve"].status == "stored"
    assert forecast.rows["generate"].status == forecast.rows["rewrite"].status == "begun"
    assert forecast.total.cached.completions == paid.completions - 1  # the keywords belong to a stored stage

    second = toys.context(tmp_path)
    assert run_pipeline(pipeline(n=24), second).samples == untouched.samples
    spent = second.ledger.sums()
    assert spent.store_hits >= paid.completions - 1
    for figure in ("requests", "input_tokens"):
        expected, real = getattr(forecast.total, figure), getattr(spent, figure)
        assert expected.expected == pytest.approx(real, rel=0.15), figure
        assert expected.low <= real <= expected.high


def test_a_pilot_stores_replies_and_passages_only(tmp_path: Path) -> None:
    where = pilot_context(tmp_path)
    run_pilot(pipeline(n=24), where, count=3)
    made = {entry.manifest.stage for entry in where.store.entries()}
    assert made == {"retrieve"}


def test_a_second_pilot_is_free(tmp_path: Path) -> None:
    run_pilot(pipeline(n=24), pilot_context(tmp_path), count=3)
    again = replace(
        toys.context(tmp_path), metrics={name: {} for name in ("keys", "seconds", "reused", "rows", "stages")}
    )
    run_pilot(pipeline(n=24), again, count=3)
    assert again.ledger.sums().requests == 0


def test_a_finished_stage_is_not_run_again(tmp_path: Path) -> None:
    stages = pipeline(n=8)
    run_pipeline({name: stages[name] for name in ("retrieve", "generate")}, make_context(tmp_path))
    where = replace(
        toys.context(tmp_path), metrics={name: {} for name in ("keys", "seconds", "reused", "rows", "stages")}
    )
    pilot = run_pilot(stages, where, count=3)
    assert {key[0] for key, row in where.ledger.rows().items() if row.requests} == {"rewrite"}
    assert len(pilot.samples) <= 6


def test_a_pilot_respects_the_budget(tmp_path: Path) -> None:
    where = pilot_context(tmp_path, ledger=Ledger(budget_usd=0.001))
    with pytest.raises(BudgetReached):
        run_pilot(pipeline(n=24, price=PRICE), where)
    assert len(ReplyCache(tmp_path / "store" / "calls")) > 0


def test_no_probe_without_rewriting(tmp_path: Path) -> None:
    stages = pipeline(n=24)
    rewrite = replace(stages["rewrite"], direction="none")  # type: ignore[arg-type]
    pilot = run_pilot({**stages, "rewrite": rewrite}, pilot_context(tmp_path), count=3)
    assert len(pilot.samples) == 3
    assert {sample.probe for sample in pilot.samples} == {None}


@component("tests.test_pilot.Heavy")
class Heavy(Guess):
    """A probe that samples from a model on this machine."""

    needs_weights: ClassVar[bool] = True
    breaks: bool = False

    def __call__(self, state: PipelineState, context: Context) -> PipelineState:
        context.reply_cache.put("1" * 32, {}, {0: Reply(text="a rollout")}, "m")
        if self.breaks:
            raise StageFailed("no such weights")
        return super().__call__(state, context)


def test_replies_of_a_local_model_are_not_kept(tmp_path: Path) -> None:
    where = pilot_context(tmp_path)
    state = replace(
        initial_state(), base=Model(name="m", path=str(toys.write_model(tmp_path / "m", 1)), parameters=0.1)
    )
    run_pilot({**pipeline(n=24), "probe": Heavy()}, where, count=3, state=state)
    assert where.reply_cache.get("1" * 32, 0) is None
    assert toys.said(where).count("WARNING") == 0


@pytest.mark.parametrize(("breaks", "parameters", "reason"), [(True, 0.1, "no such weights"), (False, 70.0, "no GPU")])
def test_if_the_base_model_cannot_run_every_other_sample_is_made_harder(
    tmp_path: Path, breaks: bool, parameters: float, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsrl.forecast.pilot.has_gpu", lambda: False)
    where = pilot_context(tmp_path)
    base = Model(name="m", path=str(toys.write_model(tmp_path / "m", 1)), parameters=parameters)
    pilot = run_pilot(
        {**pipeline(n=24), "probe": Heavy(breaks=breaks)},
        where,
        count=4,
        state=replace(initial_state(), base=base),
    )
    assert reason in toys.said(where)
    origins = [sample.origin for sample in pilot.samples[4:]]
    assert set(origins) == {"easier", "harder"}
