"""`rollout=transformers` with models of realistic size: speed, memory, reproducible replies."""

import time
from pathlib import Path
from threading import Event, Thread

import pytest

from dsrl.data.model import Model, Reply, Sampling
from dsrl.models.rollout import TransformersRollout
from dsrl.pipeline.context import Context
from tests.e2e.tiny import surroundings
from tests.gpu.conftest import Say
from tests.gpu.shapes import TINY, model, prompts

NUM_PROMPTS, WORDS = 64, 128
SAMPLING = Sampling(temperature=1.0, max_tokens=16 if TINY else 96)


class PeakMemory:
    """Peak GPU memory of all processes, in GiB, within a `with` block."""

    def __enter__(self) -> "PeakMemory":
        self.peak, self._ended = 0.0, Event()
        self._thread = Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        import torch

        while torch.cuda.is_available() and not self._ended.wait(0.1):
            left, whole = torch.cuda.mem_get_info()
            self.peak = max(self.peak, (whole - left) / 2**30)


def drawn(
    base: Model, count: int, batch_size: int, context: Context, sampling: Sampling = SAMPLING
) -> list[list[Reply]]:
    return TransformersRollout(batch_size=batch_size).generate(
        base, prompts(NUM_PROMPTS, WORDS), sampling, count, context
    )


def timed(base: Model, count: int, batch_size: int, context: Context) -> dict[str, float]:
    with PeakMemory() as watch:
        started = time.monotonic()
        replies = drawn(base, count, batch_size, context)
        seconds = time.monotonic() - started
    tokens = sum(reply.usage.output_tokens for own in replies for reply in own)
    assert all(reply.error is None for own in replies for reply in own)
    return {
        "batch_size": batch_size,
        "replies": count * NUM_PROMPTS,
        "seconds": round(seconds, 2),
        "tokens_per_second": round(tokens / seconds),
        "gpu_gib": round(watch.peak, 2),
    }


def same(first: list[list[Reply]], second: list[list[Reply]]) -> float:
    pairs = [(a.text, b.text) for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True)]
    return sum(a == b for a, b in pairs) / len(pairs)


@pytest.mark.parametrize(("size", "batches"), [("0.5B", (64, 256)), ("7B", (64, 256))])
def test_speed_of_rollouts(size: str, batches: tuple[int, ...], tmp_path: Path, say: Say) -> None:
    with model(size, tmp_path / "model") as base:
        say("model made", size=size)
        context = surroundings(tmp_path / "warm")
        TransformersRollout(batch_size=1).generate(base, ["w2"], Sampling(max_tokens=2), 1, context)
        say("model loaded", size=size)
        for batch_size in batches:
            for time_of in ("first", "second"):  # the first one loads the GPU kernels for this size
                own = surroundings(tmp_path / f"{time_of}{batch_size}")
                own._kept, own._stack = context._kept, context._stack
                figures = timed(base, max(1, batch_size // NUM_PROMPTS), batch_size, own)
                say("rollouts", size=size, time=time_of, **figures)
        context.close()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_replies_are_reproducible(dtype: str, tmp_path: Path, say: Say) -> None:
    """A resumed or extended scoring ends in the same replies; other batch sizes may change the rounding."""
    sampling = Sampling(temperature=1.0, max_tokens=16 if TINY else 48)
    with model("0.5B", tmp_path / "model", dtype) as base:
        whole, parts, other = (surroundings(tmp_path / name) for name in ("whole", "parts", "other"))
        for place in (parts, other):
            place._kept, place._stack = whole._kept, whole._stack
        at_once = drawn(base, 4, NUM_PROMPTS, whole, sampling)
        few = drawn(base, 2, NUM_PROMPTS, parts, sampling)
        more = drawn(base, 4, NUM_PROMPTS, parts, sampling)
        elsewhere = drawn(base, 4, NUM_PROMPTS // 4, other, sampling)
        assert same([own[:2] for own in more], few) == 1
        say("same replies", dtype=dtype, resumed=same(at_once, more), in_other_batches=same(at_once, elsewhere))
        assert same(at_once, more) == 1
        assert len({reply.text for own in at_once for reply in own}) > NUM_PROMPTS
        assert not TINY or same(at_once, elsewhere) == 1 or dtype == "bfloat16"
        whole.close()
