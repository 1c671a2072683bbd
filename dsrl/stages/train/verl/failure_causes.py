"""What really broke a training, out of what Ray, vLLM and torch say, and what to do about it."""

import re

FEWER = "lower train.device_batch or rl.max_response_tokens"
WANTS = (
    (
        r"No available memory for the cache blocks|less than desired GPU memory utilization|KV cache is needed",
        f"vLLM has no room for keys and values: raise train.gpu_memory or train.tensor_parallel, or {FEWER}",
    ),
    (
        r"CUDA out of memory|HIP out of memory|torch\.(cuda\.)?OutOfMemoryError|torch\.AcceleratorError.*memory",
        f"out of memory on a GPU: {FEWER}, lower train.gpu_memory, which is vLLM's share, or give train.offload=true",
    ),
    (
        r"DefaultCPUAllocator|[Cc]an(no|')t allocate memory|\bMemoryError\b|running low on memory|oom-kill",
        f"out of main memory: {FEWER}, train.workers or, without GPUs, VLLM_CPU_KVCACHE_SPACE (GiB); or ask for more: "
        "slurm.memory_gb",
    ),
    (r"No space left on device", "a disk or /dev/shm is full: make room, or lower cluster.object_store_gb"),
)
"""Pattern -> what was wanting, in words, with a cure. The first that is found counts."""
ENDS = (
    (
        r"[Tt]he node .{0,80}(died|dead|failed)|NodeDiedError|owner's node has died",
        "a node of the Ray went away; the same command again goes on from the last checkpoint",
    ),
    (
        r"ActorDiedError|ActorUnavailableError|WorkerCrashedError|[Aa]ctor died unexpectedly|Worker unexpectedly exits",
        f"a worker was killed from outside, most often for want of main memory: {FEWER}, or ask for more: "
        "slurm.memory_gb",
    ),
)
"""What is seen of a process that ended without a word; others end so, too, once one has broken."""
LONGEST = 300
BEFORE = re.compile(r"\x1b\[[0-9;]*m|^\s*\([^)]*\)\s*")
"""Colours, and the worker's name that Ray puts before each of its lines."""


def cause(text: str) -> str | None:
    """Of an error that reached the trainer."""
    return _first(WANTS + ENDS, text)


def want(text: str) -> str | None:
    """Of what was wanting, somewhere in a log."""
    return _first(WANTS, text)


def _first(table: tuple[tuple[str, str], ...], text: str) -> str | None:
    """In words, with the line that shows it."""
    for pattern, words in table:
        lines = [line for line in text.splitlines() if re.search(pattern, line)]
        if lines:
            return f"{words}\n           {BEFORE.sub('', BEFORE.sub('', lines[-1])).strip()[:LONGEST]}"
    return None
