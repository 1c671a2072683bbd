"""Evaluations that were made before, by whatever a user calls them: a run, a key, a file."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dsrl.core.errors import UserError
from dsrl.pipeline.store import Entry, Store, damage

if TYPE_CHECKING:
    from dsrl.pipeline.state import Setting
    from dsrl.stages.evaluate.predictions import Prediction

USAGE = "dsrl compare RUN | A B [store=FOLDER] [out=flipped.jsonl] [show=5] [resamples=10000] [seed=0]"
PLACES = "a run folder, RUN:base, RUN:trained, a key of `dsrl ls evaluate` (or its beginning), a predictions.parquet"
PREDICTIONS = "predictions.parquet"
ROLES = ("base", "trained")


@dataclass(frozen=True)
class Side:
    """One of the two: what the user called it, and what is in its table of predictions."""

    name: str
    setting: "Setting"
    predictions: "Sequence[Prediction]"


def both(words: Sequence[str]) -> tuple[str, str]:
    """What is to be compared; of a single run, its base and its trained model."""
    if len(words) == 1 and Path(words[0]).expanduser().is_dir():
        return f"{words[0]}:base", f"{words[0]}:trained"
    if len(words) != 2:
        raise UserError("compare: which two?", got=" ".join(words) or None, allowed=PLACES, next_step=USAGE)
    return words[0], words[1]


def side(word: str, options: Mapping[str, str]) -> Side:
    """Find a table of predictions by whatever the user calls it, and read it."""
    from dsrl.stages.evaluate.predictions import read_predictions

    folder, _, role = word.rpartition(":")
    path = Path(word).expanduser()
    if path.is_file():
        place = path
    elif path.is_dir():
        place = of_run(path, None, options)
    elif role in ROLES and Path(folder).expanduser().is_dir():
        place = of_run(Path(folder).expanduser(), role, options)
    else:
        place = of_key(word, options)
    return Side(word, *read_predictions(place))


def of_run(folder: Path, role: str | None, options: Mapping[str, str]) -> Path:
    """The predictions of a run's model; without a role, of the trained one if there is one. In a folder that holds a
    `predictions.parquet`, such as one in the store, that."""
    if (folder / PREDICTIONS).is_file():
        return folder / PREDICTIONS
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is no run folder", got="no metrics.json that can be read", allowed=PLACES) from error
    measured = metrics.get("evaluate", {})
    there = [name for name in ROLES if name in measured]
    wanted = role or (there or ["base"])[-1]
    if wanted not in there:
        raise UserError(
            f"{folder}: no {wanted} model was measured in this run", got=f"measured: {', '.join(there) or 'none'}"
        )
    told = Path(measured[wanted].get("predictions") or "")
    return told if told.is_file() else of_key(metrics.get("keys", {}).get(f"evaluate_{wanted}", "?"), options)


def of_key(word: str, options: Mapping[str, str]) -> Path:
    """The predictions of the one evaluation in the store whose key begins like this."""
    root = Path(options.get("store", os.environ.get("DSRL_STORE", "store"))).expanduser()
    entries = Store(root).entries("evaluate") if (root / "stages").is_dir() else []
    found = [entry for entry in entries if entry.manifest.key.startswith(word)]
    if len(found) == 1:
        return _predictions(found[0])
    raise UserError(
        f"{word}: {'several evaluations begin like this' if found else 'no such run, evaluation or file'}",
        got=f"evaluations in {root}: {', '.join(entry.manifest.key for entry in found or entries) or 'none'}",
        allowed=PLACES,
    )


def _predictions(entry: Entry) -> Path:
    if fault := damage(entry):
        raise UserError(f"evaluation {entry.manifest.key} is damaged", got=fault, next_step="run it again")
    return entry.folder / PREDICTIONS
