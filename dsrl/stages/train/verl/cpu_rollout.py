"""veRL's extension of vLLM's worker, for the CPU; named by `engine_kwargs.vllm.worker_extension_cls`."""

from typing import Any

import torch
import vllm.model_executor.layers.utils as layers
from verl.workers.rollout.vllm_rollout import bucketed_weight_transfer as transfer
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension

_receive_weights = transfer.BucketedWeightReceiver.receive_weights


def receive_copies(self: Any, on_bucket_received: Any) -> Any:
    """Copy the weights out of shared memory, which can't be closed while tensors use it. (A GPU copies anyway.)"""

    def take(weights: list[tuple[str, torch.Tensor]], is_last: bool) -> None:
        copies = [(name, tensor.clone()) for name, tensor in weights]
        weights.clear()
        on_bucket_received(copies, is_last)

    return _receive_weights(self, take)


def keep_weight(layer: Any, remove_weight: bool) -> None:  # noqa: ARG001 - vLLM's signature
    """Use a layer's weight as it is: vLLM would repack and delete it, and could then load no new weights."""
    layer.cpu_linear = torch.nn.functional.linear


transfer.BucketedWeightReceiver.receive_weights = receive_copies
layers.dispatch_cpu_unquantized_gemm = keep_weight


class CpuWorkerExtension(vLLMColocateWorkerExtension):  # type: ignore[misc]
    """veRL's own extension, after the two patches above."""
