"""veRL's trainer on a machine without a GPU (`train.gpus=0`). veRL loads this module in each of its processes, because
`VERL_USE_EXTERNAL_MODULES` names it, and uses the platform below because of `VERL_PLATFORM=cpu`.

veRL 0.9.1 has platforms for accelerators only. What a platform can't express is patched at the end: a few attributes of
veRL's modules and of torch. With a GPU, nothing of this is loaded.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry


class CpuModule:
    """The interface of `torch.cuda` for the CPU; functions without a counterpart do nothing."""

    zero_functions = frozenset({"memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"})

    def is_available(self) -> bool:
        """False, so that veRL skips its branches for GPUs."""
        return False

    def device_count(self) -> int:
        return 1

    def current_device(self) -> torch.device:
        return torch.device("cpu")

    def get_device_name(self, *_others: Any) -> str:
        return "cpu"

    def mem_get_info(self, *_others: Any) -> tuple[int, int]:
        """Free and total bytes of main memory."""
        page = os.sysconf("SC_PAGE_SIZE")
        return page * os.sysconf("SC_AVPHYS_PAGES"), page * os.sysconf("SC_PHYS_PAGES")

    def get_rng_state(self, *_others: Any) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, *_others: Any) -> None:
        torch.set_rng_state(state)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in self.zero_functions:
            return lambda *_arguments, **_options: 0
        return getattr(torch.cpu, name, lambda *_arguments, **_options: None)


@PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):  # type: ignore[misc]
    """One CPU as the only device; processes communicate by gloo, weights are transferred through shared memory."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = CpuModule()

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:  # noqa: ARG002 - veRL's signature
        """False: the platform is chosen by `VERL_PLATFORM` only."""
        return False

    def current_device(self) -> torch.device:
        return torch.device("cpu")

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        """There is one device only."""

    def synchronize(self, device_index: int | None = None) -> None:
        """The CPU computes synchronously."""

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        """The CPU has none."""

    def empty_cache(self) -> None:
        """The CPU has none."""

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:  # noqa: ARG002 - veRL's signature
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:  # noqa: ARG002 - veRL's signature
        yield

    def profiler_start(self) -> None:
        """Not supported."""

    def profiler_stop(self) -> None:
        """Not supported."""

    def ray_resource_name(self) -> str:
        """Our Ray declares one resource of this name as the training device."""
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        """False: weights are transferred through shared main memory."""
        return False

    def cudart(self) -> None:
        return None


def patch_verl() -> None:
    """Replace what veRL and torch assume about a device."""
    from torch.distributed.fsdp import CPUOffloadPolicy
    from verl.utils import distributed, model

    os.environ.setdefault("VERL_ENGINE_DEVICE", "cuda")  # its engines are registered for accelerators only
    initialize, offload_init = distributed.initialize_global_process_group_ray, CPUOffloadPolicy.__init__

    def with_gloo(timeout_second: Any = None, backend: str | None = None) -> Any:
        """veRL would register gloo for the CPU twice, which torch refuses."""
        return initialize(timeout_second=timeout_second, backend=backend or "cpu:gloo")

    def unpinned(self: Any, pin_memory: bool = False) -> None:  # noqa: ARG001 - torch's signature
        """Pinned memory needs an accelerator."""
        offload_init(self, pin_memory=False)

    def critic(local_path: str, torch_dtype: Any, model_config: Any, trust_remote_code: bool) -> Any:
        """veRL would load the critic with flash-attn, which needs a GPU."""
        from transformers import AutoModelForTokenClassification

        return AutoModelForTokenClassification.from_pretrained(
            local_path,
            dtype=torch_dtype,
            config=model_config,
            attn_implementation="sdpa",
            trust_remote_code=trust_remote_code,
        )

    distributed.initialize_global_process_group_ray = with_gloo
    CPUOffloadPolicy.__init__ = unpinned  # type: ignore[method-assign]
    model.load_valuehead_model = critic


if os.environ.get("VERL_PLATFORM") == "cpu":
    patch_verl()
