"""The folder that is written: empty, or an earlier export that is replaced; nothing of anybody else's is touched."""

import shutil
from pathlib import Path
from typing import Any

from dsrl import __version__
from dsrl.core.errors import UserError
from dsrl.pipeline.store import write_json

MARK = "export.json"
"""Says that the folder is ours to replace, and in the end what it holds."""
NAMES = ("data", "model", "README.md", "grader.json")
"""Everything else that an export may write, and all that a later one takes away."""


def check_free(folder: Path, *, replace: bool) -> None:
    """Raises `UserError` where something else lies there, or an earlier export that isn't to be replaced."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is no folder", next_step="give another one")
    held = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if not held or (replace and MARK in held):
        return
    raise UserError(
        f"{folder} is not empty",
        got=", ".join(held[:5]) + (f" and {len(held) - 5} more" if len(held) > 5 else ""),
        allowed="an empty or new folder" + ("" if MARK in held else ", or an earlier export"),
        next_step="replace=true replaces the earlier export" if MARK in held else "give another folder",
    )


def clear(folder: Path) -> None:
    """Takes away what an earlier export wrote."""
    for path in (folder / name for name in NAMES if (folder / MARK).is_file()):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def begin(folder: Path) -> None:
    """Makes room, and says at once whose folder it is: an export that was broken off can be replaced, too."""
    folder.mkdir(parents=True, exist_ok=True)
    clear(folder)
    finish(folder, {})


def finish(folder: Path, about: dict[str, Any]) -> None:
    """What it holds."""
    write_json(folder / MARK, {"dsrl": __version__, **about})
