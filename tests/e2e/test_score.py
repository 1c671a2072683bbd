"""Rollouts of a real model in a real child process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dsrl.core.errors import StageFailed
from dsrl.data.model import Model, Reply, Sampling
from dsrl.llm import ReplyCache
from dsrl.models.rollout import TransformersRollout
from dsrl.models.rollout.transformers import RolloutProcess
from dsrl.pipeline.context import Context
from tests.command import ENVIRONMENT
from tests.e2e.tiny import surroundings, tiny_model

pytestmark = pytest.mark.e2e
SAMPLING = Sampling(temperature=1.0, max_tokens=6)
PROMPTS = ["1 2 1", "2", "2 2 2 2 1 1 2", "1 1", "what # 2"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    """Shared, so that the libraries are imported once; every test uses different requests."""
    context = surroundings(tmp_path_factory.mktemp("run"))
    yield context
    context.close()


def rollout(batch_size: int = 4) -> TransformersRollout:
    return TransformersRollout(batch_size=batch_size, threads=1, device="cpu")


def texts(replies: list[list[Reply]]) -> list[list[str | None]]:
    return [[reply.text for reply in own] for own in replies]


def child(context: Context) -> RolloutProcess:
    (process,) = context._kept.values()
    assert isinstance(process, RolloutProcess)
    return process


def test_a_reply_depends_on_its_index_not_on_its_batch(model: Model, context: Context, tmp_path: Path) -> None:
    few = rollout().generate(model, PROMPTS, SAMPLING, 2, context)
    more = rollout().generate(model, PROMPTS, SAMPLING, 6, context)
    assert [own[:2] for own in more] == few
    assert context.ledger.of("stage")["model"]["completions"] == 6 * len(PROMPTS)
    other = replace(context, reply_cache=ReplyCache(tmp_path))
    again = rollout().generate(model, PROMPTS[::-1], SAMPLING, 6, other)
    assert texts(again[::-1]) == texts(more)
    assert len({text for own in texts(more) for text in own}) > 5


def test_finish_reasons(model: Model, context: Context) -> None:
    long = " ".join("1" * 60)
    (whole, none) = rollout().generate(model, ["1 2", long], Sampling(temperature=2.0, max_tokens=3), 8, context)
    assert {reply.finish_reason for reply in whole} == {"stop", "length"}
    assert all(reply.error and "60 tokens" in reply.error for reply in none)
    assert {reply.usage.input_tokens for reply in whole} == {2}
    greedy = rollout().generate(model, ["1 2"], Sampling(temperature=0.0, max_tokens=3), 2, context)
    assert greedy[0][0].text == greedy[0][1].text


def test_a_second_model_replaces_the_first(model: Model, context: Context, tmp_path: Path) -> None:
    second = tiny_model(tmp_path / "second", seed=1)
    sampling = replace(SAMPLING, top_p=0.9)
    drawn = [rollout().generate(which, PROMPTS, sampling, 4, context) for which in (model, second)]
    assert texts(drawn[0]) != texts(drawn[1])


def test_a_dead_child_is_restarted(model: Model, context: Context) -> None:
    sampling = replace(SAMPLING, top_p=0.8)
    rollout().generate(model, PROMPTS[:1], sampling, 1, context)
    first = child(context)._child
    assert first is not None
    first.kill()
    first.wait()
    assert rollout().generate(model, PROMPTS[1:], sampling, 1, context)
    assert child(context)._child is not first


def test_a_model_that_cannot_be_loaded_fails_the_stage(context: Context, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    empty = Model(name="empty", path=str(tmp_path / "empty"))
    with pytest.raises(StageFailed, match="rollouts"):
        rollout().generate(empty, PROMPTS, SAMPLING, 1, context)


KILLED = """
import sys
from dataclasses import replace
from pathlib import Path
from dsrl.data.model import Model, Sampling
from dsrl.models.rollout import TransformersRollout
from tests.e2e.tiny import surroundings
context = surroundings(Path(sys.argv[1]))
model = Model(name="tiny", path=sys.argv[2], prompt_format="raw", max_length=48, dtype="float32")
engine = TransformersRollout(batch_size=4, threads=1, device="cpu")
engine.generate(model, ["2"], Sampling(temperature=1.0, max_tokens=6), 1, context)
print(next(iter(context._kept.values()))._child.pid, flush=True)
engine.generate(model, sys.argv[3:], Sampling(temperature=1.0, max_tokens=6), 120, context)
"""


def test_a_killed_scoring_resumes_with_the_same_replies(model: Model, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "a"), str(model.path), *PROMPTS]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        time.sleep(0.5)
        process.send_signal(signal.SIGKILL)
    for _ in range(200):
        if not Path(f"/proc/{worker}").exists():
            break
        time.sleep(0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    resumed, fresh = surroundings(tmp_path / "a"), surroundings(tmp_path / "b")
    kept = len(resumed.reply_cache)
    assert 0 < kept < 120 * len(PROMPTS)
    replies = [rollout().generate(model, PROMPTS, SAMPLING, 120, context) for context in (resumed, fresh)]
    assert replies[0] == replies[1]
    assert resumed.ledger.of("stage")["model"]["store_hits"] == kept
    resumed.close()
    fresh.close()
