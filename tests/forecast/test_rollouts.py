from pathlib import Path

import pytest

from dsrl.core.estimate import NOTHING, Range
from dsrl.data.model import Model, Reply, Usage
from dsrl.data.sample import Sample, new_sample
from dsrl.forecast.workload import Load, Outlook
from dsrl.llm import Endpoint, ReplyCache
from dsrl.models.rollout import ServerRollout, TransformersRollout
from dsrl.pipeline.state import PipelineState
from dsrl.stages.score import Probe, Score
from dsrl.stages.train import Grpo, NoTraining, Sft, Trl
from tests.forecast.trial import PRICE, TASK

MODEL = Model(name="served", parameters=2.0)
SERVER = ServerRollout(endpoint=Endpoint(model="served", base_url="http://127.0.0.1:1/v1", price=PRICE))
SAMPLES = tuple(new_sample("quickstart", f"How many are {number} and 1?", "1", "initial") for number in range(10))


def outlook(calls: ReplyCache | None = None, **known: object) -> Outlook:
    state = PipelineState(task=TASK, base=MODEL, samples=SAMPLES)
    values = {"samples": Range.of(10), "whole": True, "parameters": 2.0, **known}
    return Outlook(state, calls, **values)  # type: ignore[arg-type]


def answered(stage: Score, samples: tuple[Sample, ...], count: int, folder: Path) -> ReplyCache:
    """A store with the first replies to some samples."""
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


def expected(load: Load | None) -> Load:
    assert load is not None
    return load


@pytest.mark.parametrize("limit", [None, 5])
def test_replies_of_a_served_model_that_are_there_are_not_asked_for_again(tmp_path: Path, limit: int | None) -> None:
    stage = Score(rollout=SERVER, rollouts=8)
    new = expected(stage.expect(outlook()).load)
    assert new.requests == Range.of(10)  # one request brings all replies to a sample
    begun = expected(stage.expect(outlook(answered(stage, SAMPLES, 4, tmp_path), limit=limit)).load)
    assert begun.held.completions == 40
    assert begun.output_tokens == new.output_tokens * 0.5
    usd = begun.usd()
    assert usd is not None
    assert usd.expected > 0


def test_a_local_model_takes_arithmetic_and_no_dollars() -> None:
    load = expected(Probe(rollout=TransformersRollout(), max_tokens=100).expect(outlook()).load)
    assert load.requests == NOTHING
    assert load.usd() == NOTHING
    assert load.flops is not None
    few, most = 10 * 60 * 2 * 2e9, 10 * (100 + 200) * 2 * 2e9  # 60 to 100 tokens drawn after some read
    assert few < load.flops.low <= load.flops.expected <= load.flops.high < most
    assert expected(Probe(rollout=TransformersRollout()).expect(outlook(parameters=None)).load).flops is None


def test_the_arithmetic_of_trainings() -> None:
    look = outlook(selected=Range.of(8), samples=Range.of(8))
    grpo = Grpo(prompts_per_step=4, responses_per_prompt=16, epochs=5, max_response_tokens=1)
    prompt = look.prompt_tokens().expected
    load = expected(Trl(algorithm=grpo, validation=0).expect(look).load)
    assert load.flops is not None
    assert load.flops.expected == pytest.approx(8 * 5 * 16 * (prompt + 1) * 12 * 2e9)
    free = Grpo(prompts_per_step=4, responses_per_prompt=16, epochs=5, max_response_tokens=1, kl=0.0)
    cheaper = expected(Trl(algorithm=free, validation=0).expect(look).load)
    assert cheaper.flops is not None
    assert cheaper.flops.expected == pytest.approx(load.flops.expected * 10 / 12)
    sft = expected(Sft(batch=4, epochs=3, validation=0).expect(look).load)
    assert sft.flops is not None
    assert 0 < sft.flops.expected < load.flops.expected
    assert expected(Trl(algorithm=grpo).expect(outlook(selected=Range.of(2))).load).flops == NOTHING  # too few


def test_without_a_training_there_is_no_trained_model_to_measure() -> None:
    assert not NoTraining().expect(outlook()).after.trains
