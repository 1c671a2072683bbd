"""Models in Hugging Face format below a folder, by the training step in the names of their folders."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dsrl.core.errors import UserError

STEP = re.compile(r"(?:checkpoint|global_step|step|iter|iteration|epoch)[-_]?(\d+)")
"""Names such as TRL's `checkpoint-30` and veRL's `global_step_30`."""
SHARDS = "model_world_size_*"
"""What veRL writes before it is merged."""
HEADER = 8
"""Bytes of a safetensors file that hold the length of its header."""


@dataclass(frozen=True)
class Checkpoint:
    """One of the models below the folder."""

    step: int | None
    """None: the folder itself, where a training leaves its last model."""
    path: Path
    fault: str = ""
    """Why it can't be measured, as far as that can be seen without loading it."""

    @property
    def name(self) -> str:
        """Of its run."""
        return "last" if self.step is None else f"step_{self.step}"


def checkpoints(folder: Path, wanted: Sequence[int] | None) -> list[Checkpoint]:
    """Those of the wanted steps, or all, in the order of steps; the folder's own model last. Raises `UserError` where
    there are none."""
    if not folder.is_dir():
        raise UserError(
            "checkpoints: model.path is no folder", got=str(folder), next_step="give the folder they are in"
        )
    there = sorted((found(step, path) for step, path in _steps(folder)), key=lambda one: (one.step or 0, str(one.path)))
    if wanted is None and (folder / "config.json").is_file():
        there.append(found(None, folder))
    chosen = [one for one in there if wanted is None or one.step in wanted]
    known = sorted({one.step for one in there if one.step is not None})
    if lacking := sorted(set(wanted or ()) - set(known)):
        raise UserError(f"checkpoints: no step {lacking[0]} in {folder}", got=f"steps {known or 'none'}")
    if not chosen:
        raise UserError(
            f"no checkpoints in {folder}",
            got="no folder with a step in its name, and no config.json",
            allowed="checkpoint-30, global_step_30, step_30, at any depth, in Hugging Face format",
        )
    return chosen


def found(step: int | None, folder: Path) -> Checkpoint:
    """The model in the folder of a step, which may lie deeper, as veRL's in `actor/huggingface`."""
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
    """Folders with a step in their names, none of them inside another."""
    for path in sorted(one for one in folder.iterdir() if one.is_dir()):
        if match := STEP.fullmatch(path.name):
            yield int(match[1]), path
        elif not path.name.startswith("."):
            yield from _steps(path)


def _fault(folder: Path) -> str:
    """What is wrong with a model's folder; empty where nothing is to be seen."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "config.json can't be read"
    if not isinstance(config, dict) or not {"model_type", "architectures"} & set(config):
        return "config.json is not that of a model"
    weights = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
    if lost := [name for name in _listed(folder) if not (folder / name).is_file()]:
        return f"{lost[0]} is missing"
    if not weights:
        return "no weights (*.safetensors)"
    cut = [path.name for path in weights if path.suffix == ".safetensors" and not _is_whole(path)]
    return f"{cut[0]} is cut off" if cut else ""


def _listed(folder: Path) -> list[str]:
    """The files that an index of weights names."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return []
    return sorted(set(json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values()))


def _is_whole(path: Path) -> bool:
    """Whether a safetensors file is as long as its own header says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(HEADER), "little")
        if length > size - HEADER:
            return False
        header = json.loads(file.read(length))
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return size == HEADER + length + max(ends, default=0)
