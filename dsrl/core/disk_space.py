"""Errors of the operating system as messages for the user, and a check for disk space."""

import errno
import shutil
from pathlib import Path

from dsrl.core.errors import StageFailed, UserError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
MIN_FREE_BYTES = 32 << 20
"""With less, the reply cache can't reserve space for replies in flight."""


def refusal(error: OSError, what: str, folder: Path | None = None) -> StageFailed:
    """The error for `what` that failed. `folder` is where most is written."""
    reason = str(error) if error.strerror is None else error.strerror
    where = f": {error.filename}" if error.filename else ""
    room = f"; {megabytes(free(folder))} free in {folder}" if folder is not None else ""
    again = "run the same command to continue: every stored reply is kept"
    cure = "free disk space there, then " if error.errno in DISK_FULL else ""
    cure = "get write permission there or give store=FOLDER, then " if error.errno in NOT_WRITABLE else cure
    return StageFailed(f"{what} failed", got=f"{reason}{where}{room}", next_step=cure + again)


def check_room(folder: Path) -> None:
    """Raise `UserError` if the disk is nearly full, before paying for replies that could not be stored."""
    if (left := free(folder)) < MIN_FREE_BYTES:
        raise UserError(
            f"store: too little disk space for the replies of this run, in {folder}",
            got=f"{megabytes(left)} free",
            allowed=f"{megabytes(MIN_FREE_BYTES)} or more",
            next_step="free disk space there, or give store=FOLDER on another disk",
        )


def free(folder: Path) -> int:
    """Free bytes in a folder, which need not exist yet."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
