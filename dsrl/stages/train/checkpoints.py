"""Checkpoints on disk. A marker file, written last, makes a checkpoint complete and holds its validation score."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from dsrl.core.files import write_json

MARKER = "whole.json"
NEEDED_TO_RESUME = ("optimizer.pt", "scheduler.pt", "rng_state.pth")
"""Files of the trainers of transformers and TRL."""
ONLY_TO_RESUME = (*NEEDED_TO_RESUME, "actor/optim_*.pt", "actor/extra_state_*.pt", "critic", "data.pt")
"""Large files, veRL's included, that the exported model doesn't need."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: a Hugging Face folder, or veRL's shards, with the optimizer state beside the weights."""

    folder: Path
    step: int
    validation: float | None
    """Share of correct replies to the held-out samples; None if there are none."""

    @property
    def resumable(self) -> bool:
        verl = any(self.folder.glob("actor/optim_*.pt")) and (self.folder / "data.pt").is_file()
        return verl or all((self.folder / name).is_file() for name in NEEDED_TO_RESUME)


def mark_complete(folder: Path, step: int, validation: float | None) -> None:
    """Write the marker of a checkpoint."""
    write_json(folder / MARKER, {"step": step, "validation": validation})


def complete_checkpoints(folder: Path) -> list[Checkpoint]:
    """The complete checkpoints in a folder, earliest first."""
    markers = [(path.parent, json.loads(path.read_text(encoding="utf-8"))) for path in folder.glob(f"*/{MARKER}")]
    found = [Checkpoint(place, values["step"], values["validation"]) for place, values in markers]
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint to resume from."""
    resumable = [checkpoint for checkpoint in complete_checkpoints(folder) if checkpoint.resumable]
    return resumable[-1] if resumable else None


def choose_checkpoint(folder: Path, keep: str) -> Checkpoint:
    """`best`: the highest validation score, the later one on ties. `last`, or without any score: the last one."""
    found = complete_checkpoints(folder)
    validated = [checkpoint for checkpoint in found if checkpoint.validation is not None]
    if keep == "last" or not validated:
        return found[-1]
    return max(validated, key=lambda checkpoint: (checkpoint.validation or 0.0, checkpoint.step))


def prune(folder: Path, keep: str) -> None:
    """Delete all but the best checkpoint, without its optimizer state, and the last one."""
    best, last = choose_checkpoint(folder, keep), complete_checkpoints(folder)[-1]
    for checkpoint in complete_checkpoints(folder):
        if checkpoint not in (best, last):
            (checkpoint.folder / MARKER).unlink()
            shutil.rmtree(checkpoint.folder)
    for pattern in ONLY_TO_RESUME if best != last else ():
        for path in best.folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def remove_incomplete(folder: Path) -> None:
    """Delete the checkpoints that a killed training didn't finish writing."""
    for place in folder.glob("*/"):
        if not (place / MARKER).is_file():
            shutil.rmtree(place)
