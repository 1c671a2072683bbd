"""Find models in Hugging Face format below a folder, by the training step in their folders' names."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dsrl.core.errors import UserError

STEP = re.compile(r"(?:checkpoint|global_step|step|iter|iteration|epoch)[-_]?(\d+)")
"""Names such as TRL's `checkpoint-30` and veRL's `global_step_30`."""
SHARDS = "model_world_size_*"
"""veRL's shards before they are merged."""
HEADER = 8
"""Bytes at the start of a safetensors file that hold the length of its header."""


@dataclass(frozen=True)
class Checkpoint:
    """A model below the folder."""

    step: int | None
    """None for the folder itself, where a training leaves its last model."""
    path: Path
    fault: str = ""
    """Why it can't be evaluated, as far as this shows without loading it; empty if nothing is wrong."""

    @property
    def name(self) -> str:
        return "last" if self.step is None else f"step_{self.step}"


def checkpoints(folder: Path, wanted: Sequence[int] | None) -> list[Checkpoint]:
    """The checkpoints of these steps, or all, in the order of steps; the folder's own model last. Raises `UserError` if
    there are none."""
    if not folder.is_dir():
        raise UserError(
            "checkpoints: model.path is not a folder", got=str(folder), next_step="give the folder with the checkpoints"
        )
    present = sorted(
        (find_model(step, path) for step, path in _steps(folder)), key=lambda one: (one.step or 0, str(one.path))
    )
    if wanted is None and (folder / "config.json").is_file():
        present.append(find_model(None, folder))
    chosen = [one for one in present if wanted is None or one.step in wanted]
    known = sorted({one.step for one in present if one.step is not None})
    if missing := sorted(set(wanted or ()) - set(known)):
        raise UserError(f"checkpoints: no step {missing[0]} in {folder}", got=f"steps {known or 'none'}")
    if not chosen:
        raise UserError(
            f"no checkpoints in {folder}",
            got="no folder with a step in its name, and no config.json",
            allowed="checkpoint-30, global_step_30, step_30, at any depth, in Hugging Face format",
        )
    return chosen


def find_model(step: int | None, folder: Path) -> Checkpoint:
    """The model in the folder of a step; it may be deeper, such as veRL's in `actor/huggingface`."""
    configs = sorted(folder.rglob("config.json")) if step is not None else [folder / "config.json"]
    faults = {path.parent: _fault(path.parent) for path in configs}
    whole = [path for path, fault in faults.items() if not fault]
    if whole:
        return Checkpoint(step, whole[0])
    if next(folder.rglob(SHARDS), None) is not None:
        return Checkpoint(step, folder, "veRL's shards; merge them first: python -m verl.model_merger merge ...")
    path, fault = next(iter(faults.items()), (folder, "no config.json in it"))
    return Checkpoint(step, path, fault)


def _steps(folder: Path) -> Iterator[tuple[int, Path]]:
    """Folders with a step in their names, not nested in each other."""
    for path in sorted(one for one in folder.iterdir() if one.is_dir()):
        if match := STEP.fullmatch(path.name):
            yield int(match[1]), path
        elif not path.name.startswith("."):
            yield from _steps(path)


def _fault(folder: Path) -> str:
    """The first fault of a model's folder; empty if there is none."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "config.json can't be read"
    if not isinstance(config, dict) or not {"model_type", "architectures"} & set(config):
        return "config.json is not a model's"
    weights = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
    if absent := [name for name in _listed(folder) if not (folder / name).is_file()]:
        return f"{absent[0]} is missing"
    if not weights:
        return "no weights (*.safetensors)"
    cut = [path.name for path in weights if path.suffix == ".safetensors" and not _is_whole(path)]
    return f"{cut[0]} is truncated" if cut else ""


def _listed(folder: Path) -> list[str]:
    """The files in an index of weights."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return []
    return sorted(set(json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values()))


def _is_whole(path: Path) -> bool:
    """Whether a safetensors file has the size that its header implies."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(HEADER), "little")
        if length > size - HEADER:
            return False
        header = json.loads(file.read(length))
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return size == HEADER + length + max(ends, default=0)
