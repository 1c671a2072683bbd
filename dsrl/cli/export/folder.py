"""The folder of an export: empty, or an earlier export that is replaced. Files of others are never touched."""

import shutil
from pathlib import Path
from typing import Any

from dsrl import __version__
from dsrl.core.errors import UserError
from dsrl.pipeline.store import write_json

MARK = "export.json"
"""Shows that dsrl may replace the folder, and tells what it holds."""
NAMES = ("data", "model", "README.md", "grader.json")
"""Everything else that an export writes, and all that replacing it removes."""


def check_free(folder: Path, *, replace: bool) -> None:
    """Raise `UserError` if something else is in the folder, or an earlier export that must not be replaced."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is not a folder", next_step="give another one")
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if not names or (replace and MARK in names):
        return
    raise UserError(
        f"{folder} is not empty",
        got=", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else ""),
        allowed="an empty or new folder" + ("" if MARK in names else ", or an earlier export"),
        next_step="replace=true replaces the earlier export" if MARK in names else "give another folder",
    )


def begin(folder: Path) -> None:
    """Remove an earlier export and mark the folder at once, so that an unfinished export can be replaced, too."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (folder / name for name in NAMES if (folder / MARK).is_file()):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    finish(folder, {})


def finish(folder: Path, about: dict[str, Any]) -> None:
    """Write down what the folder holds."""
    write_json(folder / MARK, {"dsrl": __version__, **about})
