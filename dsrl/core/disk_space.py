"""What the operating system refuses, in words for a user, and whether there is room for what will be paid for."""

import errno
import shutil
from pathlib import Path

from dsrl.core.errors import StageFailed, UserError

FULL = (errno.ENOSPC, errno.EDQUOT)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
LEAST_ROOM = 32 << 20
"""Bytes: with less, the calls store can't set room aside for replies that are under way when the disk fills up."""


def refusal(error: OSError, what: str, folder: Path | None = None) -> StageFailed:
    """For `what` that broke off. `folder`: where most is written."""
    reason = str(error) if error.strerror is None else error.strerror
    where = f": {error.filename}" if error.filename else ""
    room = f"; {megabytes(free(folder))} free in {folder}" if folder is not None else ""
    again = "run the same command to go on: every reply that was stored is kept"
    cure = "make room there, then " if error.errno in FULL else ""
    cure = "get the right to write there or give store=FOLDER, then " if error.errno in CLOSED else cure
    return StageFailed(f"{what} broke off", got=f"{reason}{where}{room}", next_step=cure + again)


def check_room(folder: Path) -> None:
    """Raises `UserError` where the disk is as good as full, before anything is paid for that could not be kept."""
    if (left := free(folder)) < LEAST_ROOM:
        raise UserError(
            f"store: too little room for the replies that this run would pay for, in {folder}",
            got=f"{megabytes(left)} free",
            allowed=f"{megabytes(LEAST_ROOM)} or more",
            next_step="make room there, or give store=FOLDER on another disk",
        )


def free(folder: Path) -> int:
    """Bytes that may still be written; the folder need not be there yet."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
