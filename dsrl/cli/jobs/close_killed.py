"""Closing runs that ended without a word: in MLflow, and in their own `status.json`."""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from dsrl.cli.jobs.run_state import Look
from dsrl.core.errors import UserError
from dsrl.pipeline.config import build
from dsrl.pipeline.run_status import amend

Place = tuple[str, str]
"""The store's folder and the tracking part of a config, as JSON: runs that share both are closed together."""


def close(died: Sequence[Look]) -> Iterator[str]:
    """Close them all, and say it. What can't be closed now is tried again with the next call."""
    places: dict[Place | None, list[Path]] = {}
    for look in died:
        places.setdefault(_place(look.folder), []).append(look.folder)
    for place, folders in places.items():
        found = _close(place, folders) if place else {"closed": 0}
        if "error" in found:
            yield f"WARNING {len(folders)} killed runs can't be closed in MLflow: {found['error']}"
            continue
        if found["closed"]:
            yield f"closed in MLflow: {found['closed']} of {len(folders)} killed"
        for folder in folders:
            amend(folder, status="killed", finished=time.time(), reason="it ended without a word")


def _place(folder: Path) -> Place | None:
    """None of a run that died before it wrote its config, and so before it was tracked."""
    try:
        values = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        began_in = json.loads((folder / "run.json").read_text(encoding="utf-8"))["folder"]
    except (OSError, ValueError):
        return None
    store = Path(began_in) / Path(values["store"]).expanduser()
    return str(store), json.dumps(values["tracking"], sort_keys=True)


def _close(place: Place, folders: Sequence[Path]) -> dict[str, Any]:
    store, tracking = place
    try:
        found: dict[str, Any] = build(json.loads(tracking), "tracking").close(
            Path(store), [str(folder.absolute()) for folder in folders]
        )
    except UserError as error:
        return {"error": str(error)}
    return found
