from pathlib import Path

import pytest

from dsrl.data.model import Model, Reply, Usage
from dsrl.data.sample import Sample, new_sample
from dsrl.forecast.estimate import NOTHING, Range
from dsrl.forecast.workload import ForecastState, Workload
from dsrl.llm import Endpoint, ReplyCache
from dsrl.models.rollout import ServerRollout, TransformersRollout
from dsrl.pipeline.state import PipelineState
from dsrl.stages.score import Probe, Score
from dsrl.stages.train import Grpo, NoTraining, Sft, Trl
from tests.forecast.small_run import PRICE, TASK

MODEL = Model(name="served", parameters=2.0)
SERVER = ServerRollout(endpoint=Endpoint(model="served", base_url="http://127.0.0.1:1/v1", price=PRICE))
SAMPLES = tuple(new_sample("quickstart", f"How many are {number} and 1?", "1", "initial") for number in range(10))


def before(calls: ReplyCache | None = None, **fields: object) -> ForecastState:
    state = PipelineState(task=TASK, base=MODEL, samples=SAMPLES)
    values = {"samples": Range.of(10), "whole": True, "parameters": 2.0, **fields}
    return ForecastState(state, calls, **values)  # type: ignore[arg-type]


def answered(stage: Score, samples: tuple[Sample, ...], count: int, folder: Path) -> ReplyCache:
    """A cache with the first replies to some samples."""
    store = ReplyCache(folder)
    for sample in samples:
        request = SERVER.endpoint.request(
            [{"role": "user", "content": TASK.prompt(sample.input)}],
            temperature=stage.temperature,
            top_p=stage.top_p,
            max_tokens=stage.max_tokens,
        )
        call = SERVER.endpoint.call(request)
        usage = Usage(input_tokens=5, output_tokens=7)
        store.put(call.digest, call.identity, {i: Reply(text="4", usage=usage) for i in range(count)}, "served")
    return store


def known(workload: Workload | None) -> Workload:
    assert workload is not None
    return workload


@pytest.mark.parametrize("limit", [None, 5])
def test_cached_replies_of_a_served_model_are_subtracted(tmp_path: Path, limit: int | None) -> None:
    stage = Score(rollout=SERVER, rollouts=8)
    new = known(stage.forecast(before()).workload)
    assert new.requests == Range.of(10)  # one request brings all replies to a sample
    begun = known(stage.forecast(before(answered(stage, SAMPLES, 4, tmp_path), limit=limit)).workload)
    assert begun.cached.completions == 40
    assert begun.output_tokens == new.output_tokens * 0.5
    usd = begun.usd()
    assert usd is not None
    assert usd.expected > 0


def test_a_local_model_takes_gpu_time_and_no_dollars() -> None:
    workload = known(Probe(rollout=TransformersRollout(), max_tokens=100).forecast(before()).workload)
    assert workload.requests == NOTHING
    assert workload.usd() == NOTHING
    assert workload.flops is not None
    few, most = 10 * 60 * 2 * 2e9, 10 * (100 + 200) * 2 * 2e9  # 60 to 100 tokens sampled after the prompt
    assert few < workload.flops.low <= workload.flops.expected <= workload.flops.high < most
    assert known(Probe(rollout=TransformersRollout()).forecast(before(parameters=None)).workload).flops is None


def test_operations_of_trainings() -> None:
    state = before(selected=Range.of(8), samples=Range.of(8))
    grpo = Grpo(prompts_per_step=4, responses_per_prompt=16, epochs=5, max_response_tokens=1)
    prompt = state.prompt_tokens().expected
    workload = known(Trl(algorithm=grpo, validation=0).forecast(state).workload)
    assert workload.flops is not None
    assert workload.flops.expected == pytest.approx(8 * 5 * 16 * (prompt + 1) * 12 * 2e9)
    free = Grpo(prompts_per_step=4, responses_per_prompt=16, epochs=5, max_response_tokens=1, kl=0.0)
    cheaper = known(Trl(algorithm=free, validation=0).forecast(state).workload)
    assert cheaper.flops is not None
    assert cheaper.flops.expected == pytest.approx(workload.flops.expected * 10 / 12)
    sft = known(Sft(batch=4, epochs=3, validation=0).forecast(state).workload)
    assert sft.flops is not None
    assert 0 < sft.flops.expected < workload.flops.expected
    assert known(Trl(algorithm=grpo).forecast(before(selected=Range.of(2))).workload).flops == NOTHING  # too few


def test_without_a_training_no_trained_model_is_measured() -> None:
    assert not NoTraining().forecast(before()).after.trains
