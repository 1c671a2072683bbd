"""Files that hold nothing but locks, in a folder that several people may share."""

import os
from contextlib import suppress
from pathlib import Path


def open_lock(path: Path) -> int:
    """A descriptor of the file, made now if it isn't there; whoever may write to its folder may lock it too."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    with suppress(PermissionError):  # another user's, who has done it
        os.fchmod(descriptor, path.parent.stat().st_mode & 0o666)
    return descriptor
