"""Where and how a training runs, apart from its algorithm."""

from typing import Any, Literal

from pydantic import Field

from dsrl.core.component import Many, record

Dtype = Literal["float32", "bfloat16"]
SHORT: dict[str, str] = {"float32": "fp32", "bfloat16": "bf16"}
"""veRL's word for a dtype where it means the arithmetic of the trainer."""


NAME = "DSRL_TRAINING"
"""Environment variable with a word that no other training has."""
CPUS_PER_DEVICE = 3
"""That veRL sets aside for each process that trains."""
OTHER_CPUS, OTHER_CPUS_WITHOUT_GPU = 12, 5
"""For its queue of samples, the eight stores behind it (without GPUs one), and two more at a time."""


@record
class Setup:
    """The part of a job that only veRL reads."""

    gpus: int
    """On each node; 0: on the CPU."""
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
    lora_rank: int = 0
    """Of the adapters that are trained; 0: all weights are."""
    lora_alpha: int = 0
    """Adapters count lora_alpha / lora_rank times."""
    nodes: int = 1
    """Of the Ray, those that train."""
    address: str = ""
    """HOST:PORT of the Ray that is there; empty before it is."""
    runtime_env: dict[str, Any] = Field(default_factory=dict)
    """Of Ray, for its workers: the user's own."""

    @property
    def per_node(self) -> int:
        """Processes that train on each node; on the CPU a single one."""
        return max(1, self.gpus)

    @property
    def devices(self) -> int:
        """Processes that train, on all nodes."""
        return self.nodes * self.per_node

    @property
    def cpus(self) -> int:
        """That veRL's processes claim on a node which holds all that is there once. Ray begins nothing that claims more
        than there is, and says nothing of it."""
        return CPUS_PER_DEVICE * self.per_node + (OTHER_CPUS if self.gpus else OTHER_CPUS_WITHOUT_GPU)

    @property
    def all_cpus(self) -> int:
        """That they claim on all nodes."""
        return self.cpus + CPUS_PER_DEVICE * self.per_node * (self.nodes - 1)
