"""vLLM and veRL on the GPU, if they are installed."""

import os
import shutil
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from dsrl.data.model import Sampling
from dsrl.infra.ray import LocalRay
from dsrl.models.rollout import TransformersRollout, VllmRollout
from dsrl.stages.train import Grpo, Verl
from tests.e2e.tiny import surroundings
from tests.gpu.conftest import Say
from tests.gpu.shapes import TINY, model, prompts, state

VLLM = shutil.which(os.environ.get("DSRL_VLLM", "vllm"))
SAMPLING = Sampling(temperature=1.0, max_tokens=16 if TINY else 128)


@pytest.mark.skipif(VLLM is None, reason="vLLM isn't installed here")
def test_greedy_replies_of_vllm_and_transformers_begin_alike(tmp_path: Path, say: Say) -> None:
    """Greedy replies diverge once two tokens are about equally likely, but rarely within four tokens."""
    with model("0.5B", tmp_path / "model") as base:
        context = surroundings(tmp_path / "run")
        vllm = VllmRollout(
            command=VLLM or "vllm", log=str(tmp_path / "vllm.log"), ready=300.0, args={"enforce-eager": True}
        )
        started = time.monotonic()
        replies = vllm.generate(base, prompts(64, 128), SAMPLING, 16, context)
        tokens = sum(reply.usage.output_tokens for own in replies for reply in own)
        say("vLLM", seconds=round(time.monotonic() - started, 1), tokens=tokens)
        assert all(reply.error is None for own in replies for reply in own)
        greedy = Sampling(temperature=0.0, max_tokens=4)
        pairs = zip(
            vllm.generate(base, prompts(32, 64), greedy, 1, context),
            TransformersRollout().generate(base, prompts(32, 64), greedy, 1, context),
            strict=True,
        )
        same = sum(one[0].text == two[0].text for one, two in pairs) / 32
        say("vLLM beside transformers", same_greedy=same)
        assert same > 0.8
        context.close()


@pytest.mark.skipif(find_spec("verl") is None or find_spec("ray") is None, reason="veRL isn't installed here")
def test_verl_trains_two_updates(tmp_path: Path, say: Say) -> None:
    with model("0.5B", tmp_path / "model") as base:
        context = surroundings(tmp_path / "run")
        rl = Grpo(prompts_per_step=4, responses_per_prompt=4, max_response_tokens=64, max_steps=2)
        after = Verl(algorithm=rl, cluster=LocalRay(), validation=4, validation_replies=1)(state(base), context)
        say("veRL", figures={name: after.figures[name] for name in ("seconds", "memory", "rollout_probs_diff_mean")})
        assert after.figures["steps"] == 2
        context.close()
