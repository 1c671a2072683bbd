"""The folders conf, tasks and corpora: beside the package in a checkout, inside it in an installed wheel."""

import functools
import os
from pathlib import Path

from dsrl.core.errors import UserError


@functools.cache
def home() -> Path:
    """The folder that holds `conf/`, `tasks/` and `corpora/`."""
    package = Path(__file__).parent.parent
    for folder in (package / "_home", package.parent):
        if (folder / "conf" / "config.yaml").is_file():
            return folder
    raise UserError(
        "dsrl is installed without its conf folder", next_step="install it again from a wheel or a checkout"
    )


def resource(path: str) -> Path:
    """A file or folder named in a config, relative to the working folder or else to `home()`. It may not exist."""
    given = Path(path).expanduser()
    if given.is_absolute() or given.exists():
        return given.resolve()
    return home() / given


def cache() -> Path:
    """Folder for files that can be made again: `$DSRL_CACHE`, else `dsrl` in the user's cache directory."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("DSRL_CACHE") or Path(folder) / "dsrl").expanduser()
