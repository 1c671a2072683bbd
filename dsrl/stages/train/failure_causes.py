"""Known causes of failure in the output of Ray, vLLM and torch, with a next step for each."""

import re

USE_LESS = "lower train.device_batch or rl.max_response_tokens"
RESOURCE_CAUSES = (
    (
        r"No available memory for the cache blocks|less than desired GPU memory utilization|KV cache is needed",
        f"vLLM has no room for the KV cache: raise train.gpu_memory or train.tensor_parallel, or {USE_LESS}",
    ),
    (
        r"CUDA out of memory|HIP out of memory|torch\.(cuda\.)?OutOfMemoryError|torch\.AcceleratorError.*memory",
        f"out of GPU memory: {USE_LESS}, lower train.gpu_memory, which is vLLM's share, or give train.offload=true",
    ),
    (
        r"DefaultCPUAllocator|[Cc]an(no|')t allocate memory|\bMemoryError\b|running low on memory|oom-kill",
        f"out of main memory: {USE_LESS}, train.workers or, without GPUs, VLLM_CPU_KVCACHE_SPACE (GiB); or request "
        "more: slurm.memory_gb",
    ),
    (
        r"ipc path|AF_UNIX path too long|socket path .*too long",
        "the path of the temporary folder is too long for a Unix socket: export TMPDIR=/tmp",
    ),
    (r"No space left on device", "a disk or /dev/shm is full: make room, or lower cluster.object_store_gb"),
)
"""Pattern -> the missing resource and the next step. The first pattern that occurs counts."""
DEATH_CAUSES = (
    (
        r"[Tt]he node .{0,80}(died|dead|failed)|NodeDiedError|owner's node has died",
        "a node of the Ray died; the same command resumes from the last checkpoint",
    ),
    (
        r"ActorDiedError|ActorUnavailableError|WorkerCrashedError|[Aa]ctor died unexpectedly|Worker unexpectedly exits",
        f"a worker was killed, most often because main memory ran out: {USE_LESS}, or request more: slurm.memory_gb",
    ),
)
"""Symptoms of a process that died without a message. Other processes show them too once one has failed."""
MAX_LINE = 300
PREFIX = re.compile(r"\x1b\[[0-9;]*m|^\s*\([^)]*\)\s*")
"""Colour codes, and the worker's name that Ray puts before each line of its output."""


def error_cause(text: str) -> str | None:
    """The cause of an error that reached the trainer, with the line that shows it; None if it is unknown."""
    return _first_match(RESOURCE_CAUSES + DEATH_CAUSES, text)


def resource_hint(log: str) -> str | None:
    """The missing resource that a log shows, with the line that shows it."""
    return _first_match(RESOURCE_CAUSES, log)


def _first_match(causes: tuple[tuple[str, str], ...], text: str) -> str | None:
    for pattern, cause in causes:
        lines = [line for line in text.splitlines() if re.search(pattern, line)]
        if lines:
            return f"{cause}\n           {PREFIX.sub('', PREFIX.sub('', lines[-1])).strip()[:MAX_LINE]}"
    return None
