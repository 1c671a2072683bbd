"""The chosen checkpoint of veRL as a Hugging Face folder: `python -m dsrl.stages.train.verl.export job.json`.

veRL's own merger writes bfloat16 whatever was trained; this one keeps the model's dtype.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from dsrl.stages.train.checkpoints import choose_checkpoint
from dsrl.stages.train.hf_worker import describe_error
from dsrl.stages.train.job import CHECKPOINTS, read_job
from dsrl.stages.train.model_folder import write_model_folder
from dsrl.stages.train.verl import process_tree
from dsrl.stages.train.verl.resources import VerlResources

PEFT_PREFIX, BASE_LAYER = "base_model.model.", ".base_layer."
LORA_A, LORA_B = ".lora_A.default.weight", ".lora_B.default.weight"
"""peft's names of wrapped and of added weights."""


def main() -> None:
    """Merge the shards and adapters, compare with the shards, save, load again."""
    process_tree.die_with_parent()
    job = read_job(Path(sys.argv[1]))
    try:
        best = choose_checkpoint(job.path(CHECKPOINTS), job.keep)
        shards = merge_shards(best.folder / "actor")
        weights = merge_adapters(shards, VerlResources(**job.settings["engine"]))
        write_model_folder(job, best, lambda base: _load_weights(base, weights))
    except Exception as error:
        job.report_failure(f"export: {describe_error(error)}", replace=True)
        raise


def merge_shards(folder: Path) -> dict[str, torch.Tensor]:
    """Full weights from the FSDP shards of all ranks."""
    world = json.loads((folder / "fsdp_config.json").read_text(encoding="utf-8"))["world_size"]
    shards = [
        # written by veRL on this machine; torch's safe loader doesn't support sharded tensors
        torch.load(folder / f"model_world_size_{world}_rank_{rank}.pt", map_location="cpu", weights_only=False)
        for rank in range(world)
    ]
    return {name: _concatenate([shard[name] for shard in shards]) for name in shards[0]}


def _concatenate(parts: list[Any]) -> torch.Tensor:
    """One tensor from its parts, by their DTensor placement."""
    first = parts[0]
    if not hasattr(first, "placements"):
        return first  # type: ignore[no-any-return]
    if len(first.placements) != 1:
        raise ValueError(f"can't merge weights sharded in {len(first.placements)} dimensions")
    (placement,) = first.placements
    local = [part._local_tensor for part in parts]
    full = torch.cat(local, dim=placement.dim) if placement.is_shard() else local[0]
    if full.shape != first.shape:
        raise ValueError(f"the shards have shape {tuple(full.shape)} in all, not {tuple(first.shape)}")
    return full


def merge_adapters(weights: dict[str, torch.Tensor], resources: VerlResources) -> dict[str, torch.Tensor]:
    """Weights under the base model's names, with LoRA adapters (if any) added: W + B @ A * alpha / rank."""
    merged = {name.removeprefix(PEFT_PREFIX).replace(BASE_LAYER, "."): value for name, value in weights.items()}
    for name_a in [name for name in merged if name.endswith(LORA_A)]:
        name_b, target = name_a.replace(LORA_A, LORA_B), name_a.replace(LORA_A, ".weight")
        scale = resources.lora_alpha / resources.lora_rank
        delta = merged.pop(name_b).float() @ merged.pop(name_a).float() * scale
        merged[target] = (merged[target].float() + delta).to(merged[target].dtype)
    return merged


def _load_weights(base: Any, weights: dict[str, torch.Tensor]) -> Any:
    """The base model with these weights, in its own dtype. Raises ValueError for missing or different tensors."""
    own = base.state_dict()
    if set(own) != set(weights):
        raise ValueError(
            f"tensors that only the base model or only the shards have: {sorted(set(own) ^ set(weights))[:3]}"
        )
    base.load_state_dict(weights)
    different = [
        name for name, value in base.state_dict().items() if not torch.equal(value, weights[name].to(value.dtype))
    ]
    if different:
        raise ValueError(f"merged tensors differ from the shards: {different[:3]}")
    return base


if __name__ == "__main__":
    main()
