import pytest

from dsrl.stages.train.failure_causes import error_cause, resource_hint


@pytest.mark.parametrize(
    ("text", "advice", "line"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB.", "train.offload", "20.00 GiB"),
        (
            "\x1b[36m(WorkerDict pid=7)\x1b[0m RuntimeError: DefaultCPUAllocator: can't allocate memory",
            "slurm.memory_gb",
            "RuntimeError: DefaultCPUAllocator",
        ),
        ("ValueError: No available memory for the cache blocks. Try", "train.gpu_memory", "cache blocks"),
        ("OSError: [Errno 28] No space left on device", "cluster.object_store_gb", "Errno 28"),
        ("ray.exceptions.ActorDiedError: The actor died unexpectedly", "slurm.memory_gb", "ActorDiedError"),
        ("The node 10.0.0.2 where it ran died", "resumes from the last checkpoint", "10.0.0.2"),
    ],
)
def test_cause_comes_with_advice_and_the_line_that_shows_it(text: str, advice: str, line: str) -> None:
    cause = error_cause(f"before\n{text}\nafter")
    assert cause is not None
    first, _, second = cause.partition("\n")
    assert advice in first
    assert line in second
    assert not second.strip().startswith(("\x1b", "(")), "colours and the worker's name are removed"


def test_other_errors_have_no_known_cause() -> None:
    assert error_cause("ValueError: loss is nan") is None
    assert resource_hint("ActorDiedError: other processes die too") is None
