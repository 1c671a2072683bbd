"""Where and how a training runs, apart from its algorithm."""

from typing import Literal

from dsrl.part import Many, record

Dtype = Literal["float32", "bfloat16"]
SHORT: dict[str, str] = {"float32": "fp32", "bfloat16": "bf16"}
"""veRL's word for a dtype where it means the arithmetic of the trainer."""


@record
class Setup:
    """The part of a job that only veRL reads."""

    gpus: int
    """On this machine; 0: on the CPU."""
    tensor_parallel: int
    """GPUs that share one copy of the model for rollouts."""
    gpu_memory: float
    """Share of a GPU's memory that vLLM takes."""
    dtype: Dtype
    """Of the arithmetic in updates and in rollouts alike; weights and optimizer are kept in float32."""
    offload: bool
    """Keep weights and optimizer in main memory while replies are drawn."""
    workers: int
    """Processes that hand out prompts, and as many that grade."""
    overrides: Many[str] = ()
    """veRL's own keys, as on its command line."""

    @property
    def devices(self) -> int:
        """Processes that train; on the CPU a single one."""
        return max(1, self.gpus)
