"""vLLM's worker on the CPU, as veRL extends it: named by `engine_kwargs.vllm.worker_extension_cls`."""

from typing import Any

import torch
import vllm.model_executor.layers.utils as layers
from verl.workers.rollout.vllm_rollout import bucketed_weight_transfer as transfer
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension

_receive = transfer.BucketedWeightReceiver.receive_weights


def receive(self: Any, on_bucket_received: Any) -> Any:
    """Copies the weights out of shared memory, which can't be closed while they lie in it; a GPU copies anyway."""

    def take(weights: list[tuple[str, torch.Tensor]], is_last: bool) -> None:
        copies = [(name, tensor.clone()) for name, tensor in weights]
        weights.clear()
        on_bucket_received(copies, is_last)

    return _receive(self, take)


def plain(layer: Any, remove_weight: bool) -> None:  # noqa: ARG001 - vLLM's signature
    """Keeps a layer's weight as it is: vLLM would repack and drop it, and then takes no new ones."""
    layer.cpu_linear = torch.nn.functional.linear


transfer.BucketedWeightReceiver.receive_weights = receive
layers.dispatch_cpu_unquantized_gemm = plain


class CpuWorkerExtension(vLLMColocateWorkerExtension):  # type: ignore[misc]
    """veRL's own, after the two changes above."""
