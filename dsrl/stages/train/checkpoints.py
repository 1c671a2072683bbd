"""Checkpoints on disk. One counts once its mark is written, after everything else; the mark holds its validation."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

MARK = "whole.json"
NEEDED_TO_RESUME = ("optimizer.pt", "scheduler.pt", "rng_state.pth")
"""Of the trainers of transformers and TRL."""
ONLY_TO_RESUME = (*NEEDED_TO_RESUME, "actor/optim_*.pt", "actor/extra_state_*.pt", "critic", "data.pt")
"""What makes a checkpoint large and no model of it needs, veRL's among it."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint: a Hugging Face folder, or veRL's shards, with the optimizer's state beside the weights."""

    folder: Path
    step: int
    validation: float | None
    """Share of right replies to held-out samples; None where there are none."""

    @property
    def resumable(self) -> bool:
        of_verl = any(self.folder.glob("actor/optim_*.pt")) and (self.folder / "data.pt").is_file()
        return of_verl or all((self.folder / name).is_file() for name in NEEDED_TO_RESUME)


def mark(folder: Path, step: int, validation: float | None) -> None:
    """Declare a checkpoint whole."""
    temporary = folder / f".{MARK}"
    temporary.write_text(json.dumps({"step": step, "validation": validation}), encoding="utf-8")
    temporary.replace(folder / MARK)


def whole(folder: Path) -> list[Checkpoint]:
    """The whole checkpoints in a folder, earliest first."""
    marks = [(path.parent, json.loads(path.read_text(encoding="utf-8"))) for path in folder.glob(f"*/{MARK}")]
    found = [Checkpoint(place, values["step"], values["validation"]) for place, values in marks]
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def latest(folder: Path) -> Checkpoint | None:
    """The one to go on from."""
    resumable = [checkpoint for checkpoint in whole(folder) if checkpoint.resumable]
    return resumable[-1] if resumable else None


def chosen(folder: Path, keep: str) -> Checkpoint:
    """`best`: the highest validation, ties to the later; `last`, or where nothing was validated: the last."""
    found = whole(folder)
    validated = [checkpoint for checkpoint in found if checkpoint.validation is not None]
    if keep == "last" or not validated:
        return found[-1]
    return max(validated, key=lambda checkpoint: (checkpoint.validation or 0.0, checkpoint.step))


def prune(folder: Path, keep: str) -> None:
    """Keep what may still be chosen and what a killed training goes on from."""
    best, last = chosen(folder, keep), whole(folder)[-1]
    for checkpoint in whole(folder):
        if checkpoint not in (best, last):
            (checkpoint.folder / MARK).unlink()
            shutil.rmtree(checkpoint.folder)
    for pattern in ONLY_TO_RESUME if best != last else ():
        for path in best.folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def sweep(folder: Path) -> None:
    """Remove what a killed training left half written."""
    for place in folder.glob("*/"):
        if not (place / MARK).is_file():
            shutil.rmtree(place)
