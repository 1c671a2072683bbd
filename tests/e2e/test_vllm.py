"""vLLM on the CPU compared with transformers: same model, same prompt tokens, same stop rules.

Needs veRL's environment, which includes vLLM: `make verl`.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from dsrl.data.model import Model, Sampling
from dsrl.models.rollout import TransformersRollout, VllmRollout
from dsrl.quickstart import Pretrain
from tests.command import CHECKOUT
from tests.e2e.tiny import surroundings

PROGRAM = Path(os.environ.get("DSRL_VLLM") or CHECKOUT / ".venv-verl" / "bin" / "vllm")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not PROGRAM.is_file(), reason="needs vLLM: make verl"),
]
PROMPTS = [
    f"Mia has {start} cards. Mia wins {gain} extra. How many cards now?" for start in (3, 7, 12) for gain in (1, 2, 5)
]
GREEDY = Sampling(temperature=0.0, max_tokens=24)


@pytest.mark.parametrize("prompt_format", ["chat", "raw"])
def test_greedy_replies_are_those_of_transformers(
    prompt_format: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSRL_CACHE", str(cache))
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    made = Pretrain(steps=250, first_look=250, min_worked=0.0, min_gap=-1.0, min_accuracy=0.0, max_accuracy=1.0)
    base = Model(name="m", prepare=made, max_length=256, dtype="float32")
    model = replace(base.locate(), prompt_format=prompt_format)  # type: ignore[arg-type]
    context = surroundings(tmp_path)
    vllm = VllmRollout(command=str(PROGRAM), log=str(tmp_path / "vllm.log"), args={"enforce-eager": True})
    with vllm.session(model, context) as server:
        found = server.generate(model, PROMPTS, GREEDY, 1, context)
        drawn = server.generate(model, PROMPTS, Sampling(temperature=1.0, max_tokens=24), 16, context)
    assert all(reply.error is None for own in drawn for reply in own), "prompts with more tokens than one prefill chunk"
    assert len({reply.text for own in drawn for reply in own}) > len(PROMPTS)
    expected = TransformersRollout(device="cpu").generate(model, PROMPTS, GREEDY, 1, context)
    assert [own[0].text for own in found] == [own[0].text for own in expected]
    assert [own[0].finish_reason for own in found] == [own[0].finish_reason for own in expected]
    context.close()
