"""The chosen checkpoint as a Hugging Face folder: `python -m dsrl.stages.train.verl.export job.json`.

veRL's own merger writes bfloat16 whatever was trained; this one keeps the model's dtype.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from dsrl.stages.train import checkpoints
from dsrl.stages.train.hf_worker import deliver, reason
from dsrl.stages.train.job import CHECKPOINTS, FAILURE, read_job
from dsrl.stages.train.verl import process_tree
from dsrl.stages.train.verl.resources import Setup

ADAPTED, INNER = "base_model.model.", ".base_layer."
DOWN, UP = ".lora_A.default.weight", ".lora_B.default.weight"
"""How peft names what it wraps, and what it adds."""


def main() -> None:
    """Merge, check against the shards, save, load again."""
    process_tree.die_with_parent()
    job = read_job(Path(sys.argv[1]))
    try:
        best = checkpoints.chosen(job.path(CHECKPOINTS), job.keep)
        weights = folded(merged(best.folder / "actor"), Setup(**job.settings["engine"]))
        deliver(job, best, lambda base: _filled(base, weights))
    except Exception as error:
        job.path(FAILURE).write_text(json.dumps({"reason": f"export: {reason(error)}"}), encoding="utf-8")
        raise


def merged(folder: Path) -> dict[str, torch.Tensor]:
    """Whole weights out of the shards of all ranks."""
    world = json.loads((folder / "fsdp_config.json").read_text(encoding="utf-8"))["world_size"]
    shards = [
        # written by veRL on this machine; torch's safe loader doesn't know sharded tensors
        torch.load(folder / f"model_world_size_{world}_rank_{rank}.pt", map_location="cpu", weights_only=False)
        for rank in range(world)
    ]
    return {name: _whole([shard[name] for shard in shards]) for name in shards[0]}


def folded(weights: dict[str, torch.Tensor], setup: Setup) -> dict[str, torch.Tensor]:
    """With the adapters, if any, added to the weights that they belong to, under the base model's own names."""
    plain = {name.removeprefix(ADAPTED).replace(INNER, "."): value for name, value in weights.items()}
    downs = [name for name in plain if name.endswith(DOWN)]
    for down in downs:
        up, target = down.replace(DOWN, UP), down.replace(DOWN, ".weight")
        change = plain.pop(up).float() @ plain.pop(down).float() * (setup.lora_alpha / setup.lora_rank)
        plain[target] = (plain[target].float() + change).to(plain[target].dtype)
    return plain


def _whole(parts: list[Any]) -> torch.Tensor:
    """One tensor of its parts, by the way in which it was shared out."""
    first = parts[0]
    if not hasattr(first, "placements"):
        return first  # type: ignore[no-any-return]
    if len(first.placements) != 1:
        raise ValueError(f"weights shared out in {len(first.placements)} dimensions can't be merged")
    (placement,) = first.placements
    local = [part._local_tensor for part in parts]
    whole = torch.cat(local, dim=placement.dim) if placement.is_shard() else local[0]
    if whole.shape != first.shape:
        raise ValueError(f"the parts make {tuple(whole.shape)}, not {tuple(first.shape)}")
    return whole


def _filled(base: Any, weights: dict[str, torch.Tensor]) -> Any:
    """The base model with these weights, in its own dtype. Raises ValueError where one lacks or isn't the shards'."""
    own = base.state_dict()
    if set(own) != set(weights):
        raise ValueError(f"other tensors than the base model's: {sorted(set(own) ^ set(weights))[:3]}")
    base.load_state_dict(weights)
    different = [
        name for name, value in base.state_dict().items() if not torch.equal(value, weights[name].to(value.dtype))
    ]
    if different:
        raise ValueError(f"merged tensors that don't equal the shards: {different[:3]}")
    return base


if __name__ == "__main__":
    main()
