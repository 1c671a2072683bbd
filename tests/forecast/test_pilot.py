from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from dsrl.core.component import component
from dsrl.core.errors import BudgetReached, StageFailed
from dsrl.data.model import Model, Reply
from dsrl.forecast.pilot import Pilot, Trial
from dsrl.llm.ledger.ledger import Ledger
from dsrl.llm.reply_cache.cache import ReplyCache
from dsrl.pipeline.context import Context
from dsrl.pipeline.runner import Keys
from dsrl.pipeline.stage import Stage
from dsrl.pipeline.state import PipelineState
from tests import toys
from tests.forecast.trial import PRICE, Guess, foreseen, pipeline, ran, start, surroundings


def tried(stages: dict[str, Stage], where: Context, count: int = 5, state: PipelineState | None = None) -> Pilot:
    state = state or start()
    try:
        return Trial(count, Keys(state), where).run(stages, state, None)
    finally:
        where.close()


def piloting(folder: Path, **changes: object) -> Context:
    where = replace(surroundings(folder), **changes)  # type: ignore[arg-type]
    where.metrics.update({name: {} for name in ("keys", "seconds", "reused", "rows", "stages")})
    return where


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> PipelineState:
    """A run that no pilot went before."""
    return ran(pipeline(n=24), surroundings(tmp_path_factory.mktemp("untouched")))


def test_the_run_uses_what_the_pilot_paid_and_ends_in_the_same_samples(
    untouched: PipelineState, tmp_path: Path
) -> None:
    first = piloting(tmp_path)
    found = tried(pipeline(n=24), first)
    paid = first.ledger.sums()
    assert paid.completions > 5 * (1 + 3) * 2  # drafts and votes, written and rewritten
    assert found.samples[:5] == untouched.samples[:5]
    assert found.latency is not None

    forecast = foreseen(pipeline(n=24), first)
    assert forecast.rows["retrieve"].state == "stored"
    assert forecast.rows["generate"].state == forecast.rows["rewrite"].state == "begun"
    assert forecast.total.held.completions == paid.completions - 1  # the keywords belong to a stored stage

    second = toys.context(tmp_path)
    assert ran(pipeline(n=24), second).samples == untouched.samples
    spent = second.ledger.sums()
    assert spent.store_hits >= paid.completions - 1
    for figure in ("requests", "input_tokens"):
        expected, real = getattr(forecast.total, figure), getattr(spent, figure)
        assert expected.expected == pytest.approx(real, rel=0.15), figure
        assert expected.low <= real <= expected.high


def test_a_pilot_stores_replies_and_passages_only(tmp_path: Path) -> None:
    where = piloting(tmp_path)
    tried(pipeline(n=24), where, count=3)
    made = {entry.manifest.stage for entry in where.store.entries()}
    assert made == {"retrieve"}


def test_a_second_pilot_is_free(tmp_path: Path) -> None:
    tried(pipeline(n=24), piloting(tmp_path), count=3)
    again = replace(
        toys.context(tmp_path), metrics={name: {} for name in ("keys", "seconds", "reused", "rows", "stages")}
    )
    tried(pipeline(n=24), again, count=3)
    assert again.ledger.sums().requests == 0


def test_a_finished_stage_is_not_tried_again(tmp_path: Path) -> None:
    stages = pipeline(n=8)
    ran({name: stages[name] for name in ("retrieve", "generate")}, surroundings(tmp_path))
    where = replace(
        toys.context(tmp_path), metrics={name: {} for name in ("keys", "seconds", "reused", "rows", "stages")}
    )
    found = tried(stages, where, count=3)
    assert {key[0] for key, row in where.ledger.rows().items() if row.requests} == {"rewrite"}
    assert len(found.samples) <= 6


def test_the_budget_holds(tmp_path: Path) -> None:
    where = piloting(tmp_path, ledger=Ledger(budget_usd=0.001))
    with pytest.raises(BudgetReached):
        tried(pipeline(n=24, price=PRICE), where)
    assert len(ReplyCache(tmp_path / "store" / "calls")) > 0


def test_nothing_is_probed_for_a_rewrite_that_is_not_made(tmp_path: Path) -> None:
    stages = pipeline(n=24)
    rewrite = replace(stages["rewrite"], direction="none")  # type: ignore[arg-type]
    found = tried({**stages, "rewrite": rewrite}, piloting(tmp_path), count=3)
    assert len(found.samples) == 3
    assert {sample.probe for sample in found.samples} == {None}


@component("tests.test_pilot.Heavy")
class Heavy(Guess):
    """A probe that draws replies of a model on this machine."""

    needs_weights: ClassVar[bool] = True
    breaks: bool = False

    def __call__(self, state: PipelineState, context: Context) -> PipelineState:
        context.calls.put("1" * 32, {}, {0: Reply(text="a rollout")}, "m")
        if self.breaks:
            raise StageFailed("no such weights")
        return super().__call__(state, context)


def test_replies_of_a_local_model_are_left_to_the_run(tmp_path: Path) -> None:
    where = piloting(tmp_path)
    state = replace(start(), base=Model(name="m", path=str(toys.write_model(tmp_path / "m", 1)), parameters=0.1))
    tried({**pipeline(n=24), "probe": Heavy()}, where, count=3, state=state)
    assert where.calls.get("1" * 32, 0) is None
    assert toys.said(where).count("WARNING") == 0


@pytest.mark.parametrize(("breaks", "parameters", "reason"), [(True, 0.1, "no such weights"), (False, 70.0, "no GPU")])
def test_without_a_probe_every_other_sample_is_made_harder(
    tmp_path: Path, breaks: bool, parameters: float, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsrl.forecast.pilot.has_gpu", lambda: False)
    where = piloting(tmp_path)
    base = Model(name="m", path=str(toys.write_model(tmp_path / "m", 1)), parameters=parameters)
    found = tried({**pipeline(n=24), "probe": Heavy(breaks=breaks)}, where, count=4, state=replace(start(), base=base))
    assert reason in toys.said(where)
    origins = [sample.origin for sample in found.samples[4:]]
    assert set(origins) == {"easier", "harder"}
